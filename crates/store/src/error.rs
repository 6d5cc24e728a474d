//! Why the store could not do what it was asked, and whose move it is.

use std::fmt;
use std::path::PathBuf;

use heirloom_base::{Bytes, Digest, Step};

use crate::disk::DiskError;
use crate::lock::Holder;
use crate::tensors::{Dtype, Malformed};

/// The store's result.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused, for another reason than being full.
    #[error(transparent)]
    Disk(#[from] DiskError),

    /// The disk is full.
    #[error("{}", no_room(path, *needs, *free, *intact))]
    NoRoom {
        /// What was being written.
        path: PathBuf,
        /// How many bytes it needs in all.
        needs: Bytes,
        /// How many bytes are free, now that the unfinished part is removed.
        free: Option<Bytes>,
        /// The newest checkpoint beside it, which is whole.
        intact: Option<Step>,
    },

    /// A committed file is not what its manifest says.
    #[error("`{}` {damage}", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },

    /// A committed folder does not hold a file that was asked for.
    #[error("`{}` holds no file `{name}`{}", folder.display(), suggest(nearest))]
    NoSuchFile {
        /// The folder.
        folder: PathBuf,
        /// The file asked for.
        name: String,
        /// The most similar name there.
        nearest: Option<String>,
    },

    /// Another process writes to the run folder.
    #[error("`{}` is in use by {}; wait for it to end, or stop it", folder.display(), held_by(by))]
    InUse {
        /// The run folder.
        folder: PathBuf,
        /// Who holds it, where the lock file says so.
        by: Option<Holder>,
    },

    /// The folder of a new run holds something.
    #[error(
        "`{}` is not empty (it holds `{holds}`); choose another folder, or continue the run in it \
         with `heirloom resume {}`",
        folder.display(), folder.display()
    )]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// The first name in it.
        holds: String,
    },

    /// There is nothing to read.
    #[error("`{}` does not exist", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
    },

    /// The record is shorter than the checkpoint says.
    #[error(
        "`{}` ends after {have} bytes, but the checkpoint was made when it had {want}; \
         it was cut or replaced, so continue from an older checkpoint or restore the file",
        file.display()
    )]
    RecordShort {
        /// The record.
        file: PathBuf,
        /// Its length in whole lines.
        have: u64,
        /// The length the checkpoint knows.
        want: u64,
    },

    /// The record has no line end where the checkpoint says one is.
    #[error(
        "`{}` has no line end at byte {at}, where the checkpoint was made; \
         it was edited or replaced, so continue from an older checkpoint or restore the file",
        file.display()
    )]
    RecordEdited {
        /// The record.
        file: PathBuf,
        /// Where a line end was expected.
        at: u64,
    },

    /// A weights file cannot be trusted.
    #[error("`{}` {cause}", file.display())]
    Tensors {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: Malformed,
    },

    /// No tensor has the name.
    #[error("`{}` has no tensor `{name}`{}", file.display(), suggest(nearest))]
    MissingTensor {
        /// The file or folder.
        file: PathBuf,
        /// The name asked for.
        name: String,
        /// The most similar name there.
        nearest: Option<String>,
    },

    /// The tensor holds numbers of another kind.
    #[error("`{name}` in `{}` is {have}, which cannot be read as {want}", file.display())]
    WrongDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What the file holds.
        have: Dtype,
        /// What was asked for.
        want: Dtype,
    },

    /// The tensor has another number of elements than the caller has room for.
    #[error("`{name}` in `{}` has shape {shape:?}, but {want} elements are needed", file.display())]
    WrongLen {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many elements were asked for.
        want: usize,
    },

    /// The folder holds no weights.
    #[error(
        "`{}` holds no weights: expected `model.safetensors` or `model.safetensors.index.json`",
        folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },

    /// The weights are a pickle.
    #[error(
        "`{}` is a PyTorch pickle, which can run code when it is loaded; convert it once, where \
         you trust it, with `safetensors.torch.save_file(torch.load(\"{}\", weights_only=True), \
         \"model.safetensors\")` and point to `model.safetensors`",
        file.display(), name
    )]
    Pickle {
        /// The file.
        file: PathBuf,
        /// Its name without the folder.
        name: String,
    },

    /// The list of shards is not one.
    #[error("`{}` cannot be read as a list of shards: {why}", file.display())]
    IndexUnreadable {
        /// The index file.
        file: PathBuf,
        /// What the reader of JSON said.
        why: serde_json::Error,
    },

    /// The list of shards names a file outside its folder.
    #[error(
        "`{}` names the shard `{shard}`, which is not a plain file name; \
         shards lie beside their index",
        file.display()
    )]
    IndexEscapes {
        /// The index file.
        file: PathBuf,
        /// The name of the shard.
        shard: String,
    },

    /// Shards that the index names do not exist.
    #[error(
        "`{}` names {} that {} not there: {}; fetch them again",
        file.display(), count(shards.len(), "shard"), if shards.len() == 1 { "is" } else { "are" },
        quoted(shards)
    )]
    ShardsMissing {
        /// The index file.
        file: PathBuf,
        /// The names of the missing shards.
        shards: Vec<String>,
    },

    /// Shards do not hold what the index says.
    #[error(
        "`{}` names {} that the shards do not hold: {}; fetch the folder again",
        file.display(), count(names.len(), "tensor"), quoted(names)
    )]
    ShardsLack {
        /// The index file.
        file: PathBuf,
        /// Each missing tensor, with the shard that should hold it.
        names: Vec<String>,
    },
}

impl StoreError {
    /// Whose move it is: 2 the user edits, 3 the user looks at the named file, 4 the user makes
    /// room or mends the disk.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Disk(_) | Self::NoRoom { .. } => 4,
            Self::InUse { .. } | Self::NotEmpty { .. } => 2,
            _ => 3,
        }
    }
}

/// What is wrong with a committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It has another length.
    WrongSize {
        /// The length now.
        have: Bytes,
        /// The length in the manifest.
        want: Bytes,
    },
    /// Its bytes are not the ones that were written.
    WrongDigest {
        /// The digest now.
        have: Digest,
        /// The digest in the manifest.
        want: Digest,
    },
    /// The manifest is no JSON, or not of the form this program writes.
    ManifestUnreadable {
        /// What the reader of JSON said.
        why: String,
    },
    /// The manifest can be read, but it is not the one that was written.
    ManifestEdited,
    /// A newer program wrote the folder.
    NewerFormat {
        /// Its format.
        have: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// The folder is called after another step than the manifest's.
    WrongStep {
        /// The manifest's step.
        manifest: Option<Step>,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is missing"),
            Self::WrongSize { have, want } if have < want => {
                write!(f, "is truncated: it has {} bytes of {}", have.0, want.0)
            }
            Self::WrongSize { have, want } => {
                write!(f, "has grown: it has {} bytes, and was written with {}", have.0, want.0)
            }
            Self::WrongDigest { have, want } => write!(
                f,
                "is damaged: its digest is {}, and was {} when it was written",
                have.short(),
                want.short()
            ),
            Self::ManifestUnreadable { why } => write!(f, "cannot be read as a manifest: {why}"),
            Self::ManifestEdited => write!(f, "is not the manifest that was written"),
            Self::NewerFormat { have, known } => write!(
                f,
                "has format {have}, and this program knows formats up to {known}; use a newer one"
            ),
            Self::WrongStep { manifest: Some(step) } => {
                write!(f, "belongs to step {}, not to the folder it lies in", step.0)
            }
            Self::WrongStep { manifest: None } => {
                write!(f, "belongs to no step, but the folder is called after one")
            }
        }
    }
}

fn no_room(
    path: &std::path::Path,
    needs: Bytes,
    free: Option<Bytes>,
    intact: Option<Step>,
) -> String {
    let mut text = format!("no room for `{}`: needs {needs}", path.display());
    if let Some(free) = free {
        text += &format!(", {free} free");
    }
    match intact {
        Some(step) => {
            let folder = crate::disk::parent(path).display().to_string();
            text += &format!(
                "; step {} is intact; free space and run `heirloom resume {folder}`",
                step.0
            );
        }
        None => text += "; free space and run the command again",
    }
    text
}

fn held_by(holder: &Option<Holder>) -> String {
    match holder {
        Some(Holder { host, process, since }) => {
            format!("process {process} on host {host} since {since}")
        }
        None => "another process".into(),
    }
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; the nearest name is `{name}`")).unwrap_or_default()
}

fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// How many names a message lists before it only counts the rest.
const LISTED: usize = 8;

fn quoted(names: &[String]) -> String {
    let listed: Vec<String> = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(LISTED);
    if rest == 0 { listed.join(", ") } else { format!("{} and {rest} more", listed.join(", ")) }
}
