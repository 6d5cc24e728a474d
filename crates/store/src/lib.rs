//! The only crate that writes to disk: drafts become committed folders, records are append-only.
//!
//! What "committed" means. A [`Draft`] is a folder called `<name>.draft`. Its files are written and
//! synced, then `manifest.json` with the size and digest of each, then the folder's names are
//! synced; only then is it renamed to `<name>`, and the parent's names are synced. So a folder
//! called `step-000002000` is a whole checkpoint or it is not there, whichever moment the process,
//! the disk or the power chose to fail. Whatever is replaced or deleted first loses its name in the
//! same way. [`recover()`] finishes or undoes what a crash left half-way and says what it did;
//! [`Committed::open`] checks every digest before anyone reads a byte, because a disk may forget
//! what it promised; [`verify()`] does the same for a whole run folder and lists all it finds.

mod commit;
mod disk;
mod elsewhere;
mod error;
mod folder;
mod growing;
mod keep;
mod lock;
mod log;
mod manifest;
mod mapped;
mod nearest;
mod recover;
mod tensors;
mod verify;

pub use commit::{Committed, Draft, DraftFile, commit_folder, write_atomic};
pub use disk::{Disk, DiskError, Doing, Entry, Kind, RealDisk};
pub use elsewhere::{Elsewhere, Mirror};
pub use error::{Damage, Result, StoreError};
pub use folder::{is_leftover, new_folder, shared_folder};
pub use growing::Growing;
pub use keep::Keep;
pub use lock::{Holder, RunLock};
pub use log::Log;
pub use manifest::{About, FORMAT, FileFacts, MANIFEST, Manifest, step_name, step_of_name};
pub use mapped::Mapped;
pub use nearest::nearest;
pub use recover::{Leftover, Recovered, Swept, recover};
pub use tensors::{
    Array, Dtype, Malformed, Number, TensorFile, TensorFolder, Values, write_f32_tensors,
    write_tensors,
};
pub use verify::{Finding, verify};
