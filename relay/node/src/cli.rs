//! The command line, which is C tor's: `relay -f torrc --verify-config`, and any torrc option with a value.
//!
//! By hand and not by clap: C tor takes every torrc option as `--Option value` or `Option value`, anywhere.

use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// What to do.
    pub command: Command,
    /// `-f`; `None` means C tor's default place, if there is a file.
    pub torrc: Option<PathBuf>,
    /// `--ignore-missing-torrc` or `--allow-missing-torrc`.
    pub torrc_may_be_missing: bool,
    /// torrc options on the command line, in order; each replaces what torrc says of it, or adds to it with `+`.
    pub options: Vec<(String, String)>,
    /// `--hush` or `--quiet`.
    pub quiet: bool,
    /// `--watch-torrc`: read torrc again, as on SIGHUP, whenever it changes on disk; no option of C tor's.
    pub watch_torrc: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Be a relay.
    Run,
    /// Say whether the configuration is good.
    VerifyConfig,
    /// Say the relay's identity; makes its keys where there are none, as C tor does.
    ListFingerprint {
        /// The Ed25519 identity instead of the RSA one.
        ed25519: bool,
    },
    /// Make the master identity if there is none, and a new signing key.
    Keygen {
        /// `--no-passphrase`: leave the master key as it is on disk.
        no_passphrase: bool,
    },
    /// Put an identity into a key directory that has none yet; no option of C tor's.
    ImportKeys {
        /// The directory with `secret_id_key` and `ed25519_master_id_secret_key`.
        from: PathBuf,
        /// The relay's key directory.
        to: PathBuf,
    },
    /// Say our version.
    Version,
    /// Say how to use this.
    Help,
}

/// Why a command line cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// An option without what must follow it.
    #[error("Command-line option '{0}' with no value. Failing.")]
    NoValue(String),
    /// A thing that C tor can do and we cannot.
    #[error("{0} is not built yet.")]
    NotBuilt(String),
}

/// Things of C tor's command line that are not built.
const NOT_BUILT: [&str; 12] = [
    "--newpass",
    "--passphrase-fd",
    "--master-key",
    "--keygen-family",
    "--key-expiration",
    "--hash-password",
    "--dump-config",
    "--list-torrc-options",
    "--list-deprecated-options",
    "--list-modules",
    "--defaults-torrc",
    "--dbg-dump-subsystem-list",
];

/// What `--help` says.
pub const HELP: &str = "\
relay: a Tor relay

relay -f TORRC [Option value]...     be a relay; options go before what TORRC says
relay -f TORRC --watch-torrc         the same, and heed changes of TORRC without a signal
relay --verify-config ...            say whether the configuration is good
relay --list-fingerprint [ed25519]   say the relay's identity
relay --keygen --no-passphrase ...   make the master identity if there is none, and a new signing key
relay --import-keys FROM TO          copy an identity into a key directory that has none
relay --version                      say the version

Options of torrc and files on disk are those of C tor 0.4.9; what is not built yet is refused by name.
";

/// Reads the arguments after the program's name.
///
/// # Errors
/// See [`CommandLineError`].
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<CommandLine, CommandLineError> {
    let mut line = CommandLine {
        command: Command::Run,
        torrc: None,
        torrc_may_be_missing: false,
        options: Vec::new(),
        quiet: false,
        watch_torrc: false,
    };
    let mut rest = arguments.into_iter().peekable();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-f" => line.torrc = Some(rest.next().ok_or(CommandLineError::NoValue(word))?.into()),
            "--ignore-missing-torrc" | "--allow-missing-torrc" => line.torrc_may_be_missing = true,
            "--hush" | "--quiet" => line.quiet = true,
            "--watch-torrc" => line.watch_torrc = true,
            "--keygen" => {
                let no_passphrase = line.command == Command::Keygen { no_passphrase: true };
                line.command = Command::Keygen { no_passphrase };
            }
            "--no-passphrase" => line.command = Command::Keygen { no_passphrase: true },
            "--verify-config" => line.command = Command::VerifyConfig,
            "--version" => line.command = Command::Version,
            "-h" | "--help" => line.command = Command::Help,
            "--list-fingerprint" => {
                let kind = rest.next_if(|kind| kind == "ed25519" || kind == "rsa");
                line.command = Command::ListFingerprint {
                    ed25519: kind.is_some_and(|kind| kind == "ed25519"),
                };
            }
            "--import-keys" => {
                let (Some(from), Some(to)) = (rest.next(), rest.next()) else {
                    return Err(CommandLineError::NoValue(word));
                };
                line.command = Command::ImportKeys {
                    from: from.into(),
                    to: to.into(),
                };
            }
            not_built if NOT_BUILT.contains(&not_built) => return Err(CommandLineError::NotBuilt(word)),
            _ => {
                let name = word.strip_prefix("--").unwrap_or(&word).to_owned();
                // `/Option` clears and takes no value.
                let value = if name.starts_with('/') {
                    None
                } else {
                    rest.next_if(|value| !value.starts_with("--"))
                };
                match value {
                    Some(value) => line.options.push((name, value)),
                    None if name.starts_with('/') => line.options.push((name, String::new())),
                    None => return Err(CommandLineError::NoValue(word)),
                }
            }
        }
    }
    Ok(line)
}

/// `text` with the options of the command line after it, in torrc's own words.
pub fn torrc_with_options(text: &str, options: &[(String, String)]) -> String {
    let mut whole = text.to_owned();
    if !whole.is_empty() && !whole.ends_with('\n') {
        whole.push('\n');
    }
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in options {
        let bare = name.to_ascii_lowercase();
        // The first of a name replaces what torrc says; a list may then go on.
        if !name.starts_with(['+', '/']) && !seen.contains(&bare) {
            whole.push_str(&format!("/{name}\n"));
            seen.push(bare);
        }
        whole.push_str(&format!("{name} {value}\n"));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> Result<CommandLine, CommandLineError> {
        parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_torrc_and_options_in_c_tors_two_spellings() {
        let line = line("-f /etc/torrc --DataDirectory /data Nickname anna --verify-config +Log debug").unwrap();
        assert_eq!(line.command, Command::VerifyConfig);
        assert_eq!(line.torrc, Some("/etc/torrc".into()));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            line.options,
            [
                pair("DataDirectory", "/data"),
                pair("Nickname", "anna"),
                pair("+Log", "debug")
            ]
        );
    }

    #[test]
    fn the_kind_of_fingerprint_may_follow() {
        assert_eq!(
            line("--list-fingerprint").unwrap().command,
            Command::ListFingerprint { ed25519: false }
        );
        let both = line("--list-fingerprint ed25519 -f x").unwrap();
        assert_eq!(both.command, Command::ListFingerprint { ed25519: true });
        assert_eq!(both.torrc, Some("x".into()));
    }

    #[test]
    fn keys_are_imported_from_one_directory_to_another() {
        let (from, to) = ("/etc/identity".into(), "/data/keys".into());
        let both = line("--import-keys /etc/identity /data/keys").unwrap();
        assert_eq!(both.command, Command::ImportKeys { from, to });
        assert!(line("--import-keys /etc/identity").is_err());
    }

    #[test]
    fn keygen_may_say_that_it_wants_no_passphrase() {
        let command = |words| line(words).unwrap().command;
        assert_eq!(command("--keygen"), Command::Keygen { no_passphrase: false });
        for words in ["--keygen --no-passphrase", "--no-passphrase --keygen"] {
            assert_eq!(command(words), Command::Keygen { no_passphrase: true });
        }
    }

    #[test]
    fn what_is_not_built_says_so() {
        assert_eq!(
            line("--newpass").unwrap_err().to_string(),
            "--newpass is not built yet."
        );
    }

    #[test]
    fn an_option_without_a_value_is_refused() {
        assert_eq!(line("-f").unwrap_err(), CommandLineError::NoValue("-f".to_owned()));
        assert_eq!(
            line("--Nickname --verify-config").unwrap_err(),
            CommandLineError::NoValue("--Nickname".to_owned())
        );
    }

    #[test]
    fn the_command_line_overrules_torrc_and_plus_adds() {
        let options = line("ORPort 1 ORPort 2 +Log debug /Address").unwrap().options;
        let text = torrc_with_options("ORPort 9001", &options);
        assert_eq!(
            text,
            "ORPort 9001\n/ORPort\nORPort 1\nORPort 2\n+Log debug\n/Address \n"
        );
    }
}
