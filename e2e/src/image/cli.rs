//! `e2e image`: images from the command line.

use std::io::Write;
use std::path::PathBuf;

use super::{Kind, Made, Programs, VERSION, build_static, make, reproduce};

/// What `e2e image` is asked to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Builds the programs and writes one OCI archive per image
    Build {
        /// The workspace's root
        #[arg(long, default_value = ".")]
        workspace: PathBuf,
        /// Where the archives go
        #[arg(long, default_value = "target/images")]
        out: PathBuf,
        /// The images' tag
        #[arg(long, default_value = VERSION)]
        tag: String,
        /// Only these images
        #[arg(long, value_delimiter = ',')]
        only: Vec<Kind>,
        /// Take static programs from this folder instead of building them
        #[arg(long)]
        programs: Option<PathBuf>,
    },
    /// Builds twice in two folders and fails unless every byte agrees
    Reproduce {
        /// The workspace's root
        #[arg(long, default_value = ".")]
        workspace: PathBuf,
        /// An empty folder for both builds; it is not removed
        #[arg(long, default_value = "target/reproduce")]
        scratch: PathBuf,
    },
}

/// Does what was asked; prints name, digest and archive of every image.
///
/// # Errors
/// When a build fails, or two builds differ.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Build {
            workspace,
            out,
            tag,
            only,
            programs,
        } => {
            let kinds = if only.is_empty() { Kind::ALL.to_vec() } else { only };
            let programs = match programs {
                Some(folder) => Programs::in_folder(&folder),
                None => build_static(&workspace)?,
            };
            print(&make(&kinds, &programs, &out, &tag)?)
        }
        Command::Reproduce { workspace, scratch } => {
            std::fs::create_dir_all(&scratch)?;
            print(&reproduce(&workspace, &scratch.canonicalize()?, VERSION)?)
        }
    }
}

fn print(images: &[Made]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for Made { name, digest, archive } in images {
        writeln!(out, "{name} {digest} {}", archive.display())?;
    }
    Ok(())
}
