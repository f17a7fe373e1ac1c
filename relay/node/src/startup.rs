//! From the command line to a configuration and keys; the commands that need no more than these.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use relay_formats::time_text;
use relay_formats::torrc::{LogLine, Severity, Torrc, TorrcErrors};

use crate::cli::{CommandLine, torrc_with_options};
use crate::config::{Config, ConfigError};
use crate::keys::{DataLock, Keys, KeysError, load_or_create, open_data_directory};
use crate::logging::{self, LogError, LogHandle};

/// torrc where none is named, as C tor's packages have it.
const DEFAULT_TORRC: &str = "/etc/tor/torrc";
/// How long we wait for another process to leave our data directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no torrc where one should be.
    #[error("Unable to open configuration file \"{path}\": {error}.", path = path.display())]
    NoTorrc {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It has mistakes.
    #[error("Failed to parse/validate config:\n{0}")]
    Torrc(#[from] TorrcErrors),
    /// It cannot be followed.
    #[error("Failed to parse/validate config: {0}")]
    Config(#[from] ConfigError),
    /// No keys.
    #[error("Error initializing keys: {0}")]
    Keys(#[from] KeysError),
    /// No log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another process uses the data directory.
    #[error("No, it's still there. Exiting.")]
    Locked,
}

/// `Tor version` is for C tor alone to say.
pub fn version_text() -> String {
    format!("relay version {} (Relayfleet).\n", env!("CARGO_PKG_VERSION"))
}

/// Writes to standard output, for commands whose answer it is.
pub fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says whose keys are in place now, or why they are not.
pub fn import_keys(from: &Path, to: &Path) -> ExitCode {
    match crate::keys::import(from, to) {
        Ok((rsa, ed25519)) => say(&format!("the keys of {rsa} ({ed25519}) are in {}\n", to.display())),
        Err(error) => refuse(&error),
    }
}

/// Logs why there will be no relay; exit code 1, as C tor has it.
pub fn refuse(error: &dyn Display) -> ExitCode {
    let _ = logging::start(&[logging::to_stdout(Severity::Notice)]);
    error.to_string().lines().for_each(|line| tracing::error!("{line}"));
    ExitCode::FAILURE
}

/// Where torrc is, or would be.
pub fn torrc_path(line: &CommandLine) -> &Path {
    line.torrc.as_deref().unwrap_or(Path::new(DEFAULT_TORRC))
}

/// Reads torrc and the command line's options.
///
/// # Errors
/// No file where one is named; every mistake in it, with line and column. Lines behind the file's end are the
/// command line's options.
pub fn read_torrc(line: &CommandLine) -> Result<Torrc, StartError> {
    let path = torrc_path(line);
    let may_be_missing = line.torrc_may_be_missing || line.torrc.is_none();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && may_be_missing => String::new(),
        Err(error) => {
            return Err(StartError::NoTorrc {
                path: path.to_path_buf(),
                error,
            });
        }
    };
    Ok(Torrc::parse(&torrc_with_options(&text, &line.options))?)
}

/// Reads torrc and looks up what it names; nothing listens yet.
///
/// # Errors
/// See [`StartError`].
pub fn read_config(line: &CommandLine) -> Result<(Torrc, Config), StartError> {
    let torrc = read_torrc(line)?;
    let config = Config::new(&torrc, &[])?;
    Ok((torrc, config))
}

/// Starts torrc's log, and says what torrc's reader found worth saying.
///
/// # Errors
/// A log file cannot be opened.
pub fn start_log(line: &CommandLine, torrc: &Torrc, config: &Config) -> Result<LogHandle, StartError> {
    let handle = logging::start(&log_lines(line, config))?;
    for warning in &torrc.warnings {
        tracing::warn!("torrc: {warning}");
    }
    Ok(handle)
}

/// torrc's log lines, unless the command line wants quiet.
pub fn log_lines(line: &CommandLine, config: &Config) -> Vec<LogLine> {
    if line.quiet {
        vec![logging::to_stdout(Severity::Err)]
    } else {
        config.logs.clone()
    }
}

/// Takes the data directory for this process and loads the keys in it.
///
/// # Errors
/// See [`StartError`].
pub fn take_keys(config: &Config) -> Result<(DataLock, Keys), StartError> {
    let lock = take_lock(&config.data_directory)?;
    let keys = load_or_create(&config.key_plan(), SystemTime::now())?;
    Ok((lock, keys))
}

fn take_lock(directory: &Path) -> Result<DataLock, StartError> {
    if let Some(lock) = open_data_directory(directory)? {
        return Ok(lock);
    }
    let patience = LOCK_PATIENCE.as_secs();
    tracing::warn!(
        "It looks like another Tor process is running with the same data directory. Waiting {patience} seconds to see \
         if it goes away."
    );
    std::thread::sleep(LOCK_PATIENCE);
    open_data_directory(directory)?.ok_or(StartError::Locked)
}

/// `--verify-config`.
pub fn verify_config(line: &CommandLine) -> ExitCode {
    match read_config(line).and_then(|(torrc, config)| start_log(line, &torrc, &config)) {
        Ok(_) => say("Configuration was valid\n"),
        Err(error) => refuse(&error),
    }
}

/// `--list-fingerprint`: the nickname and the identity, RSA's in groups of four digits as C tor prints it.
pub fn list_fingerprint(line: &CommandLine, ed25519: bool) -> ExitCode {
    let found = read_config(line).and_then(|(_, config)| {
        logging::start(&[logging::to_stdout(Severity::Err)])?;
        Ok((take_keys(&config)?.1, config.nickname))
    });
    match found {
        Ok((keys, nickname)) if ed25519 => say(&format!("{nickname} {}\n", keys.ed25519_identity)),
        Ok((keys, nickname)) => say(&format!("{nickname} {}\n", in_groups(&keys.rsa_identity().to_string()))),
        Err(error) => refuse(&error),
    }
}

/// `--keygen`. C tor asks for a passphrase on the terminal; we cannot encrypt yet, and do not leave a secret in the open
/// without being told to.
pub fn keygen(line: &CommandLine, no_passphrase: bool) -> ExitCode {
    if !no_passphrase {
        return refuse(
            &"--keygen: encrypting the master key with a passphrase is not built yet. Say --no-passphrase to keep it \
              unencrypted.",
        );
    }
    let made = read_config(line).and_then(|(_, config)| {
        logging::start(&[logging::to_stdout(Severity::Err)])?;
        let plan = config.key_plan();
        let (identity, ends) = crate::keys::keygen(&plan, SystemTime::now())?;
        Ok((identity, ends, plan))
    });
    match made {
        Ok((identity, ends, plan)) => say(&format!(
            "{} {identity}: a new signing key, good until {}, is in {}\n",
            plan.nickname,
            time_text::format(ends),
            plan.signing_directory.display()
        )),
        Err(error) => refuse(&error),
    }
}

fn in_groups(digits: &str) -> String {
    let groups: Vec<&str> = digits
        .as_bytes()
        .chunks(4)
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(" ")
}
