//! The laws of label noise.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use heirloom_data::dataset::{Dataset, KeepTexts, LabelNoise, NoiseKind};
use heirloom_data::label::{Label, Labels, RawLabel};
use heirloom_data::source::{OnBadLine, SourceSpec, read_from};
use heirloom_data::tokens::Tokenizer;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n";
const CLASSES: usize = 4;

/// `count` examples, whose classes come in turn; every fifth has no label.
fn dataset(count: usize) -> Dataset {
    let lines: String = (0..count).map(|at| format!("a\t{}\n", at % CLASSES)).collect();
    let spec = SourceSpec::tsv(0).with_label(1).headerless();
    let mut rows =
        read_from(lines.as_bytes(), Path::new("t"), &spec, None, OnBadLine::Error).unwrap();
    rows.rows.iter_mut().skip(4).step_by(5).for_each(|row| row.label = RawLabel::Missing);
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY, true).unwrap();
    let labels = Labels::classes(["0", "1", "2", "3"]);
    Dataset::build(&rows, labels, &tokenizer, 1000, KeepTexts::No).unwrap()
}

fn noise(share: f64, kind: NoiseKind) -> LabelNoise {
    LabelNoise { share, kind, seed: 1 }
}

fn classes(dataset: &Dataset) -> Vec<Option<u32>> {
    let class = |at| match *dataset.example(at).label {
        Label::Class(class) => Some(class),
        _ => None,
    };
    (0..dataset.len()).map(class).collect()
}

#[test]
fn a_changed_label_is_wrong_and_the_file_s_is_remembered() {
    let clean = dataset(2000);
    for kind in [NoiseKind::Symmetric, NoiseKind::Asymmetric] {
        let noisy = clean.clone().with_label_noise(noise(0.4, kind));
        let mut changed = 0;
        for (at, (was, is)) in classes(&clean).into_iter().zip(classes(&noisy)).enumerate() {
            changed += usize::from(was != is);
            let before = (was != is).then_some(was).flatten();
            assert_eq!(noisy.class_before_noise(at), before, "{kind:?}, example {at}");
            if let (NoiseKind::Asymmetric, Some(before)) = (kind, before) {
                assert_eq!(is, Some((before + 1) % CLASSES as u32), "example {at}");
            }
        }
        assert_eq!(noisy.noisy_labels(), changed);
        // 1600 examples have a class: the standard deviation of the count is √(1600·0.4·0.6) ≈ 20.
        assert!(changed.abs_diff(640) < 80, "{changed} labels changed");
    }
}

#[test]
fn symmetric_noise_gives_each_other_class_alike() {
    let noisy = dataset(8000).with_label_noise(noise(1.0, NoiseKind::Symmetric));
    let mut moved = [0; CLASSES];
    for (at, class) in classes(&noisy).into_iter().enumerate() {
        if let (Some(before), Some(class)) = (noisy.class_before_noise(at), class) {
            moved[(class + CLASSES as u32 - before) as usize % CLASSES] += 1;
        }
    }
    // 6400 labels fall on three classes: 2133 each, with a standard deviation of 38.
    assert_eq!(moved[0], 0);
    assert!(moved[1..].iter().all(|&count: &usize| count.abs_diff(2133) < 150), "{moved:?}");
}

#[test]
fn what_a_small_share_makes_wrong_a_larger_one_does_too() {
    let at = |share| dataset(500).with_label_noise(noise(share, NoiseKind::Symmetric));
    let (small, large) = (at(0.1), at(0.5));
    assert!(small.noisy_labels() > 0 && small.noisy_labels() < large.noisy_labels());
    for example in (0..500).filter(|&example| small.class_before_noise(example).is_some()) {
        assert_eq!(small.example(example).label, large.example(example).label);
    }
}

#[test]
fn an_example_s_noise_does_not_depend_on_the_others() {
    let kind = NoiseKind::Symmetric;
    let (few, many) = (dataset(100), dataset(900));
    let few = classes(&few.with_label_noise(noise(0.5, kind)));
    let many = classes(&many.with_label_noise(noise(0.5, kind)));
    assert_eq!(few, many[..100]);
}

#[test]
fn another_seed_makes_others_wrong() {
    let at = |seed| {
        let noise = LabelNoise { seed, ..noise(0.3, NoiseKind::Symmetric) };
        classes(&dataset(500).with_label_noise(noise))
    };
    assert_eq!(at(1), at(1));
    assert_ne!(at(1), at(2));
}

#[test]
fn a_part_remembers_its_own_noise() {
    let noisy = dataset(50).with_label_noise(noise(0.5, NoiseKind::Asymmetric));
    let part = noisy.select(&[40, 3, 7]);
    assert!(part.has_label_noise());
    for (at, example) in [40, 3, 7].into_iter().enumerate() {
        assert_eq!(part.class_before_noise(at), noisy.class_before_noise(example));
    }
    assert!(!dataset(50).select(&[1]).has_label_noise());
}

#[test]
fn digests_differ_with_the_noise_and_tokens_do_not() {
    let clean = dataset(50);
    let with = |share, kind, seed| clean.clone().with_label_noise(LabelNoise { share, kind, seed });
    let (symmetric, asymmetric) = (NoiseKind::Symmetric, NoiseKind::Asymmetric);
    assert_eq!(with(0.0, symmetric, 1), clean);
    let all = [
        clean.clone(),
        with(0.2, symmetric, 1),
        with(0.3, symmetric, 1),
        with(0.2, asymmetric, 1),
        with(0.2, symmetric, 2),
    ];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.tokens_digest(), clean.tokens_digest());
        for other in &all[..at] {
            assert_ne!(one.digest(), other.digest());
        }
    }
}
