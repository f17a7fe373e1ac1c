//! `crdgen DIR...` writes the CustomResourceDefinitions into directories, one file each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let dirs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if dirs.is_empty() {
        eprintln!("usage: crdgen DIR...    writes relays.yaml and its like into each directory");
        return ExitCode::from(2);
    }
    for dir in &dirs {
        if let Err(error) = write(dir) {
            eprintln!("crdgen: {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for (name, yaml) in operator_api::crds()? {
        std::fs::write(dir.join(name), yaml)?;
    }
    Ok(())
}
