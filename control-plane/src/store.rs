//! `skep-control-plane store`: what an administrator does with the embedded store of a control plane that is stopped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skep_store::embedded::{Embedded, Options};
use skep_store::maintenance;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Writes the newest state to a new file, with checksums.
    Backup {
        /// The store's directory.
        #[arg(long, default_value = "/var/lib/skep/store")]
        directory: PathBuf,
        /// The file to write.
        file: PathBuf,
    },
    /// Makes a store from a backup, in a directory that is empty or not there.
    Restore {
        /// The store's directory.
        #[arg(long, default_value = "/var/lib/skep/store")]
        directory: PathBuf,
        /// The backup.
        file: PathBuf,
    },
    /// Reads everything, and says whether it is whole: a store's directory, or a backup file.
    Verify {
        /// A store's directory or a backup.
        #[arg(default_value = "/var/lib/skep/store")]
        path: PathBuf,
    },
    /// Says how large a store is.
    Stats {
        /// The store's directory.
        #[arg(long, default_value = "/var/lib/skep/store")]
        directory: PathBuf,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Backup { directory, file } => backup(directory, file),
        Command::Restore { directory, file } => {
            let restored = maintenance::restore(file, directory)?;
            println!("restored {} keys at revision {} into {}", restored.keys, restored.revision, directory.display());
            Ok(())
        }
        Command::Verify { path } if path.is_file() => {
            let backup = maintenance::check_backup(path)?;
            println!(
                "the backup is whole: {} keys at revision {}, {} bytes",
                backup.keys, backup.revision, backup.bytes
            );
            Ok(())
        }
        Command::Verify { path } => {
            let found = maintenance::verify(path)?;
            println!(
                "the store is whole: {} keys at revision {}, history from revision {}, {} records",
                found.keys, found.revision, found.oldest, found.records
            );
            Ok(())
        }
        Command::Stats { directory } => {
            println!("{:#?}", maintenance::stats(directory)?);
            Ok(())
        }
    }
}

fn backup(directory: &Path, file: &Path) -> Result<()> {
    // Verified first: a typo makes no empty store, and a damaged one no backup that looks whole.
    maintenance::verify(directory).with_context(|| format!("can't back up {}", directory.display()))?;
    let store = Embedded::open(directory, Options::default())?;
    let written = maintenance::backup(&store, file)?;
    println!(
        "wrote {} keys at revision {} to {}, {} bytes",
        written.keys,
        written.revision,
        file.display(),
        written.bytes
    );
    Ok(())
}
