//! Real data sets, where `HEIRLOOM_DATA` says they are: every row is read, and none too many.

use std::path::PathBuf;
use std::sync::Arc;

use heirloom_data::dataset::{Dataset, KeepTexts, overlap};
use heirloom_data::label::Labels;
use heirloom_data::presets::{Preset, Split};
use heirloom_data::source::{Encoding, OnBadLine, Rows, SourceSpec, read};
use heirloom_data::text::{
    ChatTemplate, Corpus, Pack, PackedRows, Reading, Row, Rows as _, Separator, Shape, measure,
    write,
};
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_store::RealDisk;

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("HEIRLOOM_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: set HEIRLOOM_DATA to the folder of the real data sets");
    }
    folder
}

#[test]
fn every_row_of_glue_is_read() {
    let Some(data) = data() else { return };
    let rows = [
        ("sst2", "SST-2", Split::Train, 67_349),
        ("sst2", "SST-2", Split::Validation, 872),
        ("cola", "CoLA", Split::Train, 8_551),
        ("cola", "CoLA", Split::Validation, 1_043),
        ("rte", "RTE", Split::Train, 2_490),
        ("rte", "RTE", Split::Validation, 277),
        ("mrpc", "MRPC", Split::Train, 3_668),
        ("mrpc", "MRPC", Split::Validation, 408),
        ("stsb", "STS-B", Split::Train, 5_749),
        ("stsb", "STS-B", Split::Validation, 1_500),
        ("stsb", "STS-B", Split::Test, 1_379),
    ];
    for (name, folder, split, count) in rows {
        let preset = Preset::named(name).unwrap();
        let labels = preset.labels();
        // The folder of the task and the folder above are both fine.
        for place in [data.join("glue"), data.join("glue").join(folder)] {
            let found = preset.find(&place).unwrap();
            let found = found.split(split).unwrap();
            let rows = read(&found.files, &found.spec, Some(&labels), OnBadLine::Error).unwrap();
            assert_eq!(rows.rows.len(), count, "{name} {split:?}");
        }
    }
}

#[test]
fn every_row_of_trec_and_ag_news_is_read() {
    let Some(data) = data() else { return };
    let count = |file: &str, spec: &SourceSpec, labels: &Labels| {
        read(&[data.join(file)], spec, Some(labels), OnBadLine::Error).unwrap().rows.len()
    };
    let trec = SourceSpec {
        encoding: Encoding::Latin1,
        label_separator: Some(':'),
        ..SourceSpec::label_first()
    };
    let coarse = Labels::classes(["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]);
    assert_eq!(count("trec/train.txt", &trec, &coarse), 5_452);
    assert_eq!(count("trec/test.txt", &trec, &coarse), 500);
    let topics = Labels::classes(["World", "Sports", "Business", "Sci/Tech"]);
    let sample = SourceSpec::tsv(0).headerless().with_label(1);
    assert_eq!(count("ag_news/train_sample.tsv", &sample, &topics), 10_001);
    let test = SourceSpec::csv(1).headerless().with_pair(2).with_label(0);
    assert_eq!(count("ag_news/test.csv", &test, &Labels::classes(["1", "2", "3", "4"])), 7_600);
}

#[test]
fn the_old_tokenizer_file_and_the_vocabulary_are_one_tokenizer() {
    let Some(data) = data() else { return };
    let folder = data.join("tokenizers/bert-base-uncased");
    let file = Tokenizer::open(&folder).unwrap();
    let vocabulary = Tokenizer::open(&folder.join("vocab.txt")).unwrap();
    assert_eq!(file.digest(), vocabulary.digest());
    assert_eq!(first_difference(&file, &vocabulary), None);
    assert_eq!(file.vocab_size(), 30_522);
    assert_eq!(file.special().mask, Some(103));
    let gpt2 = Tokenizer::open(&data.join("tokenizers/gpt2")).unwrap();
    assert_eq!((gpt2.vocab_size(), gpt2.special().pad), (50_257, None));
    assert_eq!(gpt2.encode("Hello world", None, 8).unwrap().ids, [15496, 995]);
}

#[test]
fn a_real_dataset_says_what_is_in_it() {
    let Some(data) = data() else { return };
    let tokenizer = Tokenizer::open(&data.join("tokenizers/bert-base-uncased")).unwrap();
    let preset = Preset::named("sst2").unwrap();
    let found = preset.find(&data.join("glue")).unwrap();
    let build = |split: Split| {
        let found = found.split(split).unwrap();
        let rows: Rows =
            read(&found.files, &found.spec, Some(&preset.labels()), OnBadLine::Error).unwrap();
        Dataset::build(&rows, preset.labels(), &tokenizer, 128, KeepTexts::No).unwrap()
    };
    let (train, validation) = (build(Split::Train), build(Split::Validation));
    assert_eq!(train.class_counts(), [29_780, 37_569]);
    assert_eq!((train.truncated(), validation.truncated()), (0, 0));
    assert_eq!(train.lengths().unwrap().shortest, 3);
    let found = overlap(&train, &validation);
    assert_eq!(found.count, 0, "{found:?}");
}

#[test]
fn stories_and_novels_are_packed_with_every_byte() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = |name: &str| Tokenizer::open(&data.join("tokenizers").join(name)).unwrap();
    let marker = Separator::Marker("<|endoftext|>".to_owned());
    let stories = Reading { separator: marker, ..Reading::plain() };
    let lines = Reading { separator: Separator::BlankLine, ..Reading::plain() };
    let rows = [
        ("gpt2", "text/tinystories.txt", stories.with_end("<|endoftext|>"), 2_317, 504_511),
        ("bert-base-uncased", "text/tinyshakespeare.txt", lines.with_end("[SEP]"), 7_222, 295_941),
        ("gpt2", "text/novels/Doyle_Hound_1902.txt", Reading::plain(), 1, 80_238),
    ];
    for (name, file, reading, documents, tokens) in rows {
        let corpus = Corpus::open(&[data.join(file)], reading).unwrap();
        let tokenizer = tokenizer(name);
        let target = folder.path().join(format!("{name}-{documents}"));
        let shards = write(&RealDisk, &target, &corpus, &tokenizer, &mut |_| ()).unwrap();
        let counts = shards.about().counts;
        assert_eq!((counts.documents, counts.tokens), (documents, tokens), "{file}");
        let text: usize = corpus.texts().unwrap().map(|text| text.unwrap().len()).sum();
        assert_eq!(counts.bytes, text as u64, "{file}");
        let shards = Arc::new(shards);
        let packed =
            PackedRows::new(Arc::clone(&shards), &shards.all(), Pack::Documents, 256).unwrap();
        let (mut row, mut bytes, mut learnt) = (Row::default(), 0, 0);
        for number in 0..packed.len() {
            packed.read(number, &mut row);
            bytes += row.bytes;
            learnt += row.learnt() as u64;
        }
        let firsts = (0..documents as u32).map(|one| shards.token(shards.range(one).start).bytes);
        assert_eq!(bytes + firsts.sum::<u64>(), counts.bytes, "{file}");
        assert_eq!(learnt, tokens - documents, "{file}");
    }
}

#[test]
fn every_instruction_becomes_an_example() {
    let Some(data) = data() else { return };
    let tokenizer = Tokenizer::open(&data.join("tokenizers/gpt2")).unwrap();
    let named = |name| Some(ChatTemplate::named(name, &tokenizer).unwrap());
    let shape =
        Shape::Completion { prompt: "question".to_owned(), completion: "answer".to_owned() };
    let math = Reading { shape, ..Reading::plain() };
    let alpaca = Reading { shape: Shape::alpaca(), ..Reading::plain() };
    let rows = [
        ("instruct/alpaca.json", Reading { template: named("alpaca"), ..alpaca.clone() }, 2_000),
        ("instruct/alpaca.json", Reading { template: named("chatml"), ..alpaca }, 2_000),
        ("instruct/gsm8k/test.jsonl", Reading { template: named("chatml"), ..math.clone() }, 1_319),
        ("instruct/gsm8k/test.jsonl", math.with_end("<|endoftext|>"), 1_319),
    ];
    for (file, reading, documents) in rows {
        let corpus = Corpus::open(&[data.join(file)], reading).unwrap();
        let counts = measure(&corpus, &tokenizer, &mut |_| ()).unwrap();
        assert_eq!((counts.documents, counts.empty, counts.unknown), (documents, 0, 0), "{file}");
        assert!(counts.learnt > counts.tokens / 4 && counts.learnt < counts.tokens, "{counts:?}");
    }
}
