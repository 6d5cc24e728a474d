//! `heirloom verify`: every byte of what we wrote, against its digests.

use heirloom::failure::Failure;
use heirloom_store::{RealDisk, verify};
use serde_json::json;

use crate::args::VerifyArgs;
use crate::show::Show;

pub(crate) fn run(args: &VerifyArgs, show: Show) -> Result<u8, Failure> {
    let findings = verify(&RealDisk, &args.folder)?;
    let damaged = findings.iter().any(|finding| finding.is_damage());
    if show.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "finding": finding.to_string(), "damage": finding.is_damage() }))
            .collect();
        show.json(&json!({ "whole": !damaged, "findings": findings }));
    } else {
        for finding in &findings {
            show.data(&format!("{finding}\n"));
        }
        if !damaged {
            show.data(&format!("`{}` is whole\n", args.folder.display()));
        }
    }
    Ok(if damaged { 3 } else { 0 })
}
