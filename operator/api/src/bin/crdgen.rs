//! `crdgen DIR` writes the CustomResourceDefinitions into a directory, one file each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: crdgen DIR    writes relays.yaml and its like into DIR");
        return ExitCode::from(2);
    };
    match write(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for (name, yaml) in operator_api::crds()? {
        std::fs::write(dir.join(name), yaml)?;
    }
    Ok(())
}
