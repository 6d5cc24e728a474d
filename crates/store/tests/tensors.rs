//! Weights files: what is written is read, by us and by others; what is wrong is refused by name.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails its test")]

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use heirloom_base::Bytes;
use heirloom_store::{
    About, Array, Draft, Dtype, RealDisk, StoreError, TensorFile, TensorFolder, Values,
    write_f32_tensors, write_tensors,
};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// Writes the arrays as `model.safetensors` of a folder `model`.
fn written(root: &Path, arrays: &[Array<'_>], metadata: &[(&str, &str)]) -> std::path::PathBuf {
    let mut draft = Draft::begin(&RealDisk, &root.join("model"), Bytes(0)).unwrap();
    let fill = |file: &mut heirloom_store::DraftFile<'_>| write_tensors(file, arrays, metadata);
    draft.put_with("model.safetensors", fill).unwrap();
    draft.commit(About::default()).unwrap().file("model.safetensors").unwrap()
}

#[test]
fn arrays_of_every_kind_survive_being_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let floats = [1.0f32, -2.5, f32::MIN_POSITIVE, f32::INFINITY, 0.1, -0.0];
    let halves = [f16::from_f32(0.5), f16::from_f32(-65504.0)];
    let brains = [bf16::from_f32(0.5), bf16::from_f32(3e38)];
    let arrays = [
        Array::f32("b", &[2, 3], &floats),
        Array { name: "bytes", shape: &[3], values: Values::U8(b"abc") },
        Array { name: "half", shape: &[2], values: Values::F16(&halves) },
        Array { name: "brain", shape: &[2, 1], values: Values::BF16(&brains) },
        Array { name: "double", shape: &[1], values: Values::F64(&[0.1]) },
        Array { name: "u32", shape: &[], values: Values::U32(&[7]) },
        Array { name: "u64", shape: &[2], values: Values::U64(&[u64::MAX, 0]) },
        Array { name: "i64", shape: &[1], values: Values::I64(&[-1]) },
        Array::f32("empty", &[0, 5], &[]),
    ];
    let file = TensorFile::open(&written(folder.path(), &arrays, &[("format", "pt")])).unwrap();
    assert_eq!(
        file.names().collect::<Vec<_>>(),
        ["b", "brain", "bytes", "double", "empty", "half", "i64", "u32", "u64"]
    );
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.read_f32("b").unwrap(), floats);
    assert_eq!(file.shape("b").unwrap(), [2, 3]);
    assert_eq!(file.read::<u8>("bytes").unwrap(), b"abc");
    assert_eq!(file.read_f32("half").unwrap(), [0.5, -65504.0]);
    assert_eq!(file.dtype("half").unwrap(), Dtype::F16);
    assert_eq!(file.read_f32("brain").unwrap(), brains.map(f32::from));
    assert_eq!(file.read::<f64>("double").unwrap(), [0.1]);
    assert_eq!(file.read_f32("double").unwrap(), [0.1f32]);
    assert_eq!(file.read::<u32>("u32").unwrap(), [7]);
    assert_eq!(file.read::<u64>("u64").unwrap(), [u64::MAX, 0]);
    assert_eq!(file.read::<i64>("i64").unwrap(), [-1]);
    assert_eq!(file.read_f32("empty").unwrap(), [0.0f32; 0]);
}

#[test]
fn arrays_asked_for_piece_by_piece_make_the_same_file() {
    let root = tempfile::tempdir().unwrap();
    // The first is longer than a piece.
    let values = [1_100_000, 3, 0].map(|len| (0..len).map(|at| at as f32).collect::<Vec<_>>());
    let shapes: [&[usize]; 3] = [&[1100, 1000], &[3], &[0, 4]];
    let names = ["b", "a", "c"];
    let at_once = [0, 1, 2].map(|at| Array::f32(names[at], shapes[at], &values[at]));
    let whole = fs::read(written(root.path(), &at_once, &[("format", "pt")])).unwrap();
    let mut draft = Draft::begin(&RealDisk, &root.path().join("pieces"), Bytes(0)).unwrap();
    let named = [0, 1, 2].map(|at| (names[at], shapes[at]));
    draft
        .put_with("model.safetensors", |file| {
            let numbers = |at: usize, range: std::ops::Range<usize>| values[at][range].to_vec();
            write_f32_tensors(file, &named, &[("format", "pt")], numbers)
        })
        .unwrap();
    let committed = draft.commit(About::default()).unwrap();
    let pieces = fs::read(committed.file("model.safetensors").unwrap()).unwrap();
    assert!(pieces == whole);
}

#[test]
fn half_precision_is_widened_across_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let halves: Vec<f16> = (0..40_000).map(|index| f16::from_f32((index % 2048) as f32)).collect();
    let array = Array { name: "long", shape: &[200, 200], values: Values::F16(&halves) };
    let file = TensorFile::open(&written(folder.path(), &[array], &[])).unwrap();
    let want: Vec<f32> = (0..40_000).map(|index| (index % 2048) as f32).collect();
    assert_eq!(file.read_f32("long").unwrap(), want);
}

#[test]
fn a_request_that_does_not_fit_the_array_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let arrays = [
        Array::f32("encoder.layer.0.weight", &[2, 1], &[1.0, 2.0]),
        Array { name: "counts", shape: &[1], values: Values::U64(&[1]) },
    ];
    let path = written(folder.path(), &arrays, &[]);
    let file = TensorFile::open(&path).unwrap();
    let short = |error: StoreError| {
        assert_eq!(error.exit_code(), 3);
        error.to_string().replace(&path.display().to_string(), "m")
    };
    insta::assert_snapshot!(short(file.read_f32("encoder.layers.0.weight").unwrap_err()), @"`m` has no tensor `encoder.layers.0.weight`; the nearest name is `encoder.layer.0.weight`");
    insta::assert_snapshot!(short(file.read_f32("counts").unwrap_err()), @"`counts` in `m` is U64, which cannot be read as F32");
    insta::assert_snapshot!(short(file.read::<f64>("encoder.layer.0.weight").unwrap_err()), @"`encoder.layer.0.weight` in `m` is F32, which cannot be read as F64");
    let mut room = [0.0; 3];
    let error = file.read_into_f32("encoder.layer.0.weight", &mut room).unwrap_err();
    insta::assert_snapshot!(short(error), @"`encoder.layer.0.weight` in `m` has shape [2, 1], but 3 elements are needed");
}

/// A file with this header (its length put before it) and so many bytes behind it.
fn bytes(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn open_bytes(bytes: &[u8]) -> Result<TensorFile, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    TensorFile::open(&path)
}

/// What the user reads, after the file's name.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let error = open_bytes(bytes).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    assert!(SafeTensors::deserialize(bytes).is_err(), "others read what we refuse: {text}");
    text.split_once("model.safetensors` ").unwrap().1.to_owned()
}

#[test]
fn an_honest_file_is_accepted() {
    for (header, data) in [
        ("{}", 0),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   "#, 0),
        (r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"__metadata__":{"x":"y"}}"#, 1),
    ] {
        assert!(SafeTensors::deserialize(&bytes(header, data)).is_ok(), "{header}");
        open_bytes(&bytes(header, data)).unwrap();
    }
}

#[test]
fn a_file_too_short_is_refused() {
    insta::assert_snapshot!(refused(b"\x01\x02\x03"), @"is too short to hold weights: 3 bytes; fetch it again");
    insta::assert_snapshot!(refused(b""), @"is too short to hold weights: 0 bytes; fetch it again");
}

#[test]
fn an_endless_header_is_refused_before_memory_is_taken() {
    let header = [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat();
    insta::assert_snapshot!(refused(&header), @"announces a header of 9223372036854775808 bytes, more than the 100000000 allowed");
}

#[test]
fn a_header_past_the_end_is_refused() {
    let header = [&90_000_000u64.to_le_bytes()[..], b"{}"].concat();
    insta::assert_snapshot!(refused(&header), @"announces a header of 90000000 bytes, but only 2 follow; it is truncated or no safetensors file, so fetch it again");
}

#[test]
fn a_header_that_is_not_text_is_refused() {
    let header = [&3u64.to_le_bytes()[..], b"{\xff}"].concat();
    insta::assert_snapshot!(refused(&header), @"has a header that is not UTF-8 from byte 9 on");
}

#[test]
fn a_header_that_is_not_json_is_refused() {
    insta::assert_snapshot!(refused(&bytes("{'a'", 0)), @"has a header that cannot be read: key must be a string at line 1 column 2");
    insta::assert_snapshot!(refused(&bytes("[]", 0)), @"has a header that cannot be read: invalid type: sequence, expected a table of arrays at line 1 column 0");
    insta::assert_snapshot!(refused(&bytes("{}{}", 0)), @"has a header that cannot be read: trailing characters at line 1 column 3");
}

#[test]
fn a_deep_header_is_refused() {
    let deep = "[".repeat(100_000);
    let ignored = format!(r#"{{"a":{{"dtype":"U8","x":{deep}"#);
    insta::assert_snapshot!(refused(&bytes(&ignored, 0)), @"has a header that cannot be read: EOF while parsing a list at line 1 column 100023");
    let read = format!(r#"{{"a":{{"dtype":"U8","shape":{deep}"#);
    insta::assert_snapshot!(refused(&bytes(&read, 0)), @"has a header that cannot be read: invalid type: sequence, expected usize at line 1 column 28");
}

#[test]
fn a_negative_offset_is_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 1)), @"has a header that cannot be read: invalid value: integer `-1`, expected u64 at line 1 column 49");
}

#[test]
fn reversed_offsets_are_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 4)), @"gives `a` the bytes 4..0, which end before they begin");
}

#[test]
fn overlapping_arrays_are_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 6)), @"lets `b` begin at byte 2, inside the array before it, which ends at 4");
}

#[test]
fn a_gap_between_arrays_is_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 5)), @"lets `a` begin at byte 1, but the array before it ends at 0");
}

#[test]
fn a_shape_that_does_not_fit_its_bytes_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 20)), @"gives `a` 20 bytes, but F32 of shape [2, 3] takes 24");
}

#[test]
fn a_shape_that_overflows_is_refused() {
    let elements = r#"{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    insta::assert_snapshot!(refused(&bytes(elements, 0)), @"gives `a` the shape [4294967296, 4294967296], whose size overflows");
    let size = r#"{"a":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,0]}}"#;
    insta::assert_snapshot!(refused(&bytes(size, 0)), @"gives `a` the shape [9223372036854775807], whose size overflows");
}

#[test]
fn a_truncated_file_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 7)), @"is truncated: its arrays take 8 bytes, and 7 are there; fetch it again");
}

#[test]
fn bytes_left_over_are_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 9)), @"has 1 bytes after its last array, which belong to nothing");
}

#[test]
fn an_unknown_kind_of_number_is_refused() {
    let header = r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 4)), @"holds `a` as F33, which is not read here; convert it to F32, F16 or BF16");
}

#[test]
fn a_repeated_name_is_refused() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    insta::assert_snapshot!(refused(&bytes(header, 2)), @"names `a` twice");
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("model.safetensors");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [folder.path(), &pipe] {
        let error = TensorFile::open(path).unwrap_err();
        assert!(error.to_string().ends_with("is not a file"), "{error}");
        assert_eq!(error.exit_code(), 3);
    }
}

#[test]
fn a_pickle_is_refused_by_name_and_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Pickle { .. }), "{error}");
        assert_eq!(error.exit_code(), 3);
        error.to_string().replace(&folder.path().display().to_string(), "bert")
    };
    at("a.safetensors", b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00");
    at("b.safetensors", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    at("c.pt", b"anything");
    at("d.pth", b"");
    insta::assert_snapshot!(at("pytorch_model.bin", b"anything"), @r#"`bert/pytorch_model.bin` is a PyTorch pickle, which can run code when it is loaded; convert it once, where you trust it, with `safetensors.torch.save_file(torch.load("pytorch_model.bin", weights_only=True), "model.safetensors")` and point to `model.safetensors`"#);
    // A header of 640 bytes begins like a pickle.
    open_bytes(&bytes(&format!("{{}}{}", " ".repeat(638)), 0)).unwrap();
}

/// A folder of two shards, `a` in the first and `b` in the second, with this index.
fn sharded(folder: &Path, index: &str) -> Result<TensorFolder, StoreError> {
    for (shard, name) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let data = if name == "a" { 1.0f32 } else { 2.0 };
        let mut file = bytes(&header, 0);
        file.extend_from_slice(&data.to_le_bytes());
        fs::write(folder.join(shard), file).unwrap();
    }
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    TensorFolder::open(folder)
}

#[track_caller]
fn shards_refused(index: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = sharded(folder.path(), index).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    error.to_string().replace(&folder.path().display().to_string(), "bert")
}

#[test]
fn arrays_are_found_in_whichever_shard_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let index = r#"{"metadata":{},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}}"#;
    let model = sharded(folder.path(), index).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        (model.read_f32("a").unwrap(), model.read_f32("b").unwrap()),
        (vec![1.0], vec![2.0])
    );
    assert!(model.has("a") && !model.has("c"));
    assert!(matches!(model.shape("c"), Err(StoreError::MissingTensor { .. })));
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    insta::assert_snapshot!(shards_refused(r#"{"weight_map":{"a":"one.safetensors","b":"three.safetensors"}}"#), @"`bert/model.safetensors.index.json` names 1 shard that is not there: `three.safetensors`; fetch them again");
    insta::assert_snapshot!(shards_refused(r#"{"weight_map":{"a":"one.safetensors","c":"two.safetensors"}}"#), @"`bert/model.safetensors.index.json` names 1 tensor that the shards do not hold: `c (two.safetensors)`; fetch the folder again");
    insta::assert_snapshot!(shards_refused(r#"{"weight_map":{"a":"../one.safetensors"}}"#), @"`bert/model.safetensors.index.json` names the shard `../one.safetensors`, which is not a plain file name; shards lie beside their index");
    insta::assert_snapshot!(shards_refused("{}"), @"`bert/model.safetensors.index.json` cannot be read as a list of shards: missing field `weight_map` at line 1 column 2");
}

#[test]
fn a_folder_without_weights_says_what_it_has_instead() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let error = TensorFolder::open(folder.path()).unwrap_err();
        error.to_string().replace(&folder.path().display().to_string(), "bert")
    };
    insta::assert_snapshot!(open(), @"`bert` holds no weights: expected `model.safetensors` or `model.safetensors.index.json`");
    for name in ["optimizer.pt", "pytorch_model.bin"] {
        fs::write(folder.path().join(name), b"x").unwrap();
    }
    assert!(open().starts_with("`bert/pytorch_model.bin` is a PyTorch pickle"), "{}", open());
    let error = TensorFolder::open(Path::new("no/such/model")).unwrap_err();
    insta::assert_snapshot!(error, @"`no/such/model` does not exist");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_we_write_others_read_and_equal_arrays_give_equal_bytes(
        arrays in prop::collection::btree_map(".{0,6}", prop::collection::vec(any::<f32>(), 0..9), 0..5)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let shapes: Vec<[usize; 1]> = arrays.values().map(|values| [values.len()]).collect();
        let mut list: Vec<Array<'_>> = arrays
            .iter()
            .zip(&shapes)
            .map(|((name, values), shape)| Array::f32(name, shape, values))
            .collect();
        let first = fs::read(written(folder.path(), &list, &[("format", "pt")])).unwrap();
        list.reverse();
        let second = fs::read(written(folder.path(), &list, &[("format", "pt")])).unwrap();
        prop_assert_eq!(&first, &second);
        let theirs = SafeTensors::deserialize(&first).unwrap();
        prop_assert_eq!(theirs.len(), arrays.len());
        for (name, values) in &arrays {
            let view = theirs.tensor(name).unwrap();
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            prop_assert_eq!(view.data(), &bytes[..]);
        }
    }

    #[test]
    fn a_changed_file_is_read_or_refused_and_never_more(
        at in 0usize..200, byte in any::<u8>(), keep in 0usize..200
    ) {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}}"#;
        let mut file = bytes(header, 19);
        let len = file.len();
        file[at % len] = byte;
        file.truncate(keep.max(1) * 2);
        let ours = open_bytes(&file);
        if let Ok(ours) = &ours {
            prop_assert!(SafeTensors::deserialize(&file).is_ok());
            for name in ours.names() {
                let len: usize = ours.shape(name).unwrap().iter().product();
                prop_assert!(len <= file.len());
            }
        }
    }
}
