//! The laws of order, packing and datasets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use heirloom_base::Digest;
use heirloom_data::dataset::{Dataset, KeepTexts, overlap};
use heirloom_data::label::{Label, Labels, RawLabel};
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::{Batch, evaluation_batches, micro_batches, micro_ranges, pack, scatter};
use heirloom_data::source::{OnBadLine, Row, Rows, SourceSpec, read_from};
use heirloom_data::text;
use heirloom_data::tokens::Tokenizer;
use proptest::prelude::*;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n";

fn tokenizer() -> Tokenizer {
    Tokenizer::from_vocabulary(VOCABULARY, true).unwrap()
}

/// Texts of these numbers of words; with special tokens each is two longer.
fn dataset(lengths: &[usize]) -> Dataset {
    let lines: String = lengths
        .iter()
        .zip(0..)
        .map(|(length, at)| {
            format!(
                "{}\t{}\n",
                ["a", "b", "c"][at % 3].to_owned() + &" a".repeat(length - 1),
                at % 3
            )
        })
        .collect();
    let spec = SourceSpec::tsv(0).with_label(1).headerless();
    let rows = read_from(lines.as_bytes(), Path::new("t"), &spec, None, OnBadLine::Error).unwrap();
    let labels = Labels::classes(["0", "1", "2"]);
    Dataset::build(&rows, labels, &tokenizer(), 1000, KeepTexts::No).unwrap()
}

fn rule() -> impl Strategy<Value = BatchRule> {
    prop_oneof![
        (1usize..9).prop_map(BatchRule::Sequences),
        (1usize..40).prop_map(BatchRule::Tokens)
    ]
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..20, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_example_comes_once_an_epoch(lengths in lengths(), rule in rule(), seed: u64) {
        let dataset = dataset(&lengths);
        let mut order = Order::new(seed, dataset.len());
        let mut cursor = Cursor::default();
        for epoch in 0..3 {
            let mut seen = Vec::new();
            let mut steps = 0;
            while cursor.epoch == epoch {
                let (step, after) = order.next_step(&dataset, cursor, rule);
                prop_assert!(!step.is_empty());
                prop_assert_eq!(after.step, cursor.step + 1);
                seen.extend(step);
                steps += 1;
                cursor = after;
            }
            prop_assert_eq!(&seen, order.epoch(epoch));
            prop_assert_eq!(steps, order.steps_per_epoch(&dataset, epoch, rule));
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..dataset.len() as u32));
        }
    }

    #[test]
    fn from_any_cursor_the_rest_is_the_same(lengths in lengths(), rule in rule(), seed: u64, stop in 0usize..12) {
        let dataset = dataset(&lengths);
        let run = |mut order: Order, mut cursor: Cursor, steps: usize| {
            let mut seen = Vec::new();
            for _ in 0..steps {
                let (step, after) = order.next_step(&dataset, cursor, rule);
                seen.push(step);
                cursor = after;
            }
            (seen, cursor)
        };
        let fresh = || Order::new(seed, dataset.len());
        let (whole, end) = run(fresh(), Cursor::default(), 12);
        let (_, stopped) = run(fresh(), Cursor::default(), stop);
        let (rest, again) = run(fresh(), stopped, 12 - stop);
        prop_assert_eq!(&whole[stop..], &rest[..]);
        prop_assert_eq!(end, again);
    }

    #[test]
    fn unpacking_gives_the_examples_back(lengths in lengths(), first in 0usize..50) {
        let dataset = dataset(&lengths);
        let examples: Vec<u32> = (0..dataset.len() as u32).rev().collect();
        let batch = pack(&dataset, &examples, first);
        prop_assert_eq!(batch.tokens(), lengths.iter().map(|length| length + 2).sum::<usize>());
        prop_assert_eq!(&batch.examples, &examples);
        for (sequence, &index) in examples.iter().enumerate() {
            let example = dataset.example(index as usize);
            let range = batch.range(sequence);
            prop_assert_eq!(&batch.ids[range.clone()], example.ids);
            prop_assert_eq!(&batch.labels[sequence], example.label);
            for (position, token) in range.enumerate() {
                prop_assert_eq!(batch.type_ids[token], u32::from(example.type_ids[position]));
                prop_assert_eq!(batch.positions[token], position as u32);
                prop_assert_eq!(batch.rows[token] >> 16, (first + sequence) as u32);
                prop_assert_eq!(batch.rows[token] & 0xFFFF, position as u32);
            }
        }
    }

    #[test]
    fn micro_batches_joined_are_the_whole(lengths in lengths(), rule in rule()) {
        let dataset = dataset(&lengths);
        let examples: Vec<u32> = (0..dataset.len() as u32).rev().collect();
        let whole = pack(&dataset, &examples, 0);
        let mut joined = Batch { starts: vec![0], ..Batch::default() };
        let mut reused = Batch::default();
        let ranges = micro_ranges(&dataset, &examples, rule);
        for (part, range) in micro_batches(&dataset, &examples, rule).iter().zip(ranges) {
            reused.refill(&dataset, &examples[range.clone()], range.start);
            prop_assert_eq!(part, &reused);
            if let BatchRule::Tokens(budget) = rule {
                prop_assert!(part.tokens() <= budget || part.sequences() == 1);
            }
            let before = joined.ids.len() as u32;
            joined.ids.extend(&part.ids);
            joined.type_ids.extend(&part.type_ids);
            joined.positions.extend(&part.positions);
            joined.rows.extend(&part.rows);
            joined.starts.extend(part.starts[1..].iter().map(|start| start + before));
            joined.examples.extend(&part.examples);
            joined.labels.extend(part.labels.iter().cloned());
        }
        prop_assert_eq!(joined, whole);
    }

    #[test]
    fn evaluation_returns_to_the_order_of_the_dataset(lengths in lengths(), budget in 1usize..60) {
        let dataset = dataset(&lengths);
        let mut all = vec![-1.0; dataset.len() * 2];
        let batches: Vec<Batch> = evaluation_batches(&dataset, budget).collect();
        for batch in &batches {
            let rows: Vec<f32> =
                batch.examples.iter().flat_map(|&e| [e as f32, e as f32 + 0.5]).collect();
            scatter(batch, &rows, 2, &mut all);
        }
        let want: Vec<f32> = (0..dataset.len()).flat_map(|e| [e as f32, e as f32 + 0.5]).collect();
        prop_assert_eq!(all, want);
        prop_assert!(batches.windows(2).all(|two| two[0].longest() >= two[1].longest()));
    }

    #[test]
    fn a_split_parts_the_examples(lengths in lengths(), fraction in 0.0f64..=1.0, seed: u64) {
        let dataset = dataset(&lengths);
        let (train, held) = dataset.split_indexes(fraction, seed);
        let mut both = [train.clone(), held.clone()].concat();
        both.sort_unstable();
        prop_assert!(both.into_iter().eq(0..dataset.len() as u32));
        prop_assert_eq!(&(train.clone(), held.clone()), &dataset.split_indexes(fraction, seed));
        prop_assert!((held.len() as f64 - fraction * dataset.len() as f64).abs() <= 1.0);
        let (part, _) = dataset.split(fraction, seed);
        for (at, &index) in train.iter().enumerate() {
            prop_assert_eq!(part.example(at), dataset.example(index as usize));
        }
    }
}

#[test]
fn the_rows_of_some_steps_are_those_that_the_steps_read() {
    let dataset = dataset(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for rule in [BatchRule::Sequences(3), BatchRule::Tokens(14)] {
        let (mut cursor, mut want) = (Cursor::default(), std::collections::BTreeSet::new());
        for steps in 0..9 {
            let got = Order::new(3, 10).read_within(&dataset, steps, rule);
            assert_eq!(
                got,
                want.iter().copied().collect::<Vec<u32>>(),
                "{steps} steps of {rule:?}"
            );
            let (step, after) = Order::new(3, 10).next_step(&dataset, cursor, rule);
            want.extend(step);
            cursor = after;
        }
        assert_eq!(want.len(), 10);
    }
}

#[test]
fn published_orders_never_change() {
    let dataset = dataset(&[1; 6]);
    let mut order = Order::new(7, dataset.len());
    let (step, _) = order.next_step(&dataset, Cursor::default(), BatchRule::Sequences(4));
    assert_eq!(step, PINNED_STEP);
    assert_eq!(dataset.split_indexes(0.5, 7).1, PINNED_SPLIT);
}

const PINNED_STEP: [u32; 4] = [4, 2, 5, 0];
const PINNED_SPLIT: [u32; 3] = [0, 1, 3];

/// Rows of one token each, of which some come first.
struct Led(Vec<u32>);

impl text::Rows for Led {
    fn len(&self) -> usize {
        40
    }
    fn length(&self, _: usize) -> usize {
        1
    }
    fn read(&self, _: usize, _: &mut text::Row) {}
    fn digest(&self) -> Digest {
        Digest::of(b"")
    }
    fn first(&self) -> &[u32] {
        &self.0
    }
}

#[test]
fn rows_that_come_first_do_so_once_and_no_other_changes_its_place_among_the_others() {
    let first = vec![3, 4, 11, 17, 39];
    let rows = Led(first.clone());
    let plain = |epoch| Order::new(7, 40).epoch(epoch).to_vec();
    let (chosen, others): (Vec<u32>, Vec<u32>) =
        plain(0).into_iter().partition(|row| first.contains(row));
    let mut order = Order::of_rows(7, &rows);
    assert_eq!(order.epoch(0), [chosen.clone(), others].concat());
    assert_eq!(order.epoch(1), plain(1));
    assert_eq!(Order::of_rows(7, &Led(Vec::new())).epoch(0), plain(0));
    // A run that ends while they last reads nothing else, and a cursor is all it takes to go on.
    let (rule, all) = (BatchRule::Sequences(2), &rows as &dyn text::Rows);
    let within = Order::of_rows(7, &rows).read_within(all, 2, rule);
    assert!(within.len() == 4 && within.iter().all(|row| first.contains(row)));
    let mut cursor = Cursor::default();
    for want in chosen.chunks_exact(2) {
        let (step, after) = Order::of_rows(7, &rows).next_step(all, cursor, rule);
        assert_eq!(step, want);
        cursor = after;
    }
}

#[test]
fn no_example_makes_no_step() {
    let dataset = dataset(&[]);
    let mut order = Order::new(7, 0);
    let cursor = Cursor::default();
    let none = (Vec::new(), cursor);
    assert_eq!(order.next_step(&dataset, cursor, BatchRule::Sequences(4)), none);
    assert_eq!(order.steps_per_epoch(&dataset, 0, BatchRule::Tokens(4)), 0);
    assert!(evaluation_batches(&dataset, 10).next().is_none() && dataset.lengths().is_none());
}

fn rows(texts: &[(&str, i64)], policy: OnBadLine) -> Rows {
    let row = |(&(text, label), line): (&(&str, i64), u64)| Row {
        line,
        text: text.into(),
        pair: None,
        label: RawLabel::Integer(label),
    };
    let mut rows = Rows::of(texts.iter().zip(1..).map(row).collect());
    rows.skipped.policy = policy;
    rows
}

fn build(rows: &Rows, max_length: usize) -> Dataset {
    let labels = Labels::classes(["no", "yes", "maybe"]);
    Dataset::build(rows, labels, &tokenizer(), max_length, KeepTexts::Yes).unwrap()
}

#[test]
fn a_dataset_says_what_is_in_it() {
    let dataset = build(&rows(&[("a", 0), ("a b c", 1), ("c", 1)], OnBadLine::Error), 4);
    assert_eq!(dataset.example(1).ids, [2, 5, 6, 3]);
    assert_eq!(dataset.truncated(), 1);
    assert_eq!(dataset.class_counts(), [1, 2, 0]);
    assert_eq!(dataset.classes_without_examples(), ["maybe"]);
    assert_eq!(dataset.text(1).unwrap().text, "a b c");
    let lengths = dataset.lengths().unwrap();
    assert_eq!((lengths.shortest, lengths.median, lengths.longest, lengths.total.0), (3, 3, 4, 10));
    assert_eq!(dataset.limit(2).class_counts(), [1, 1, 0]);
}

#[test]
fn a_digest_changes_with_text_label_policy_and_tokens() {
    let texts = [("a", 0), ("b", 1)];
    let base = build(&rows(&texts, OnBadLine::Error), 4);
    assert_eq!(base.digest(), build(&rows(&texts, OnBadLine::Error), 4).digest());
    let other_label = build(&rows(&[("a", 0), ("b", 2)], OnBadLine::Error), 4);
    assert_ne!(base.digest(), other_label.digest());
    assert_eq!(base.tokens_digest(), other_label.tokens_digest());
    let other_text = build(&rows(&[("a", 0), ("c", 1)], OnBadLine::Error), 4);
    assert_ne!(base.digest(), other_text.digest());
    assert_ne!(base.tokens_digest(), other_text.tokens_digest());
    let other_policy = build(&rows(&texts, OnBadLine::Skip { limit: 1 }), 4);
    assert_ne!(base.digest(), other_policy.digest());
    assert_ne!(base.digest(), base.select(&[1, 0]).digest());
}

#[test]
fn texts_in_both_sets_are_counted() {
    let train = build(&rows(&[("a", 0), ("b", 1), ("a", 1)], OnBadLine::Error), 4);
    let validation = build(&rows(&[("c", 0), ("a", 1), ("b", 1)], OnBadLine::Error), 4);
    let found = overlap(&train, &validation);
    assert_eq!((found.count, found.first), (2, Some((0, 1))));
    assert_eq!(overlap(&validation.select(&[0]), &train).count, 0);
}

#[test]
fn rows_without_a_label_are_examples_without_one() {
    let mut rows = rows(&[("a", 0)], OnBadLine::Error);
    rows.rows[0].label = RawLabel::Missing;
    let dataset = build(&rows, 4);
    assert_eq!((dataset.example(0).label, dataset.unlabelled()), (&Label::None, 1));
}

#[test]
fn a_label_outside_the_list_names_its_line() {
    let rows = rows(&[("a", 0), ("b", 9)], OnBadLine::Error);
    let labels = Labels::classes(["no", "yes"]);
    let refused = Dataset::build(&rows, labels, &tokenizer(), 4, KeepTexts::No).unwrap_err();
    insta::assert_snapshot!(refused, @"row of line 2: label is 9, expected 0..=1");
    let room = Dataset::build(&rows, Labels::score(), &tokenizer(), 2, KeepTexts::No).unwrap_err();
    insta::assert_snapshot!(room, @"`max_length = 2` leaves no room for text: the tokenizer adds 2 special tokens");
}
