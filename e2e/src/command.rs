//! Running other programs: what they say is kept, and a failure tells which program, how it ended and its last words.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that go into the error.
const LAST_WORDS: usize = 15;

/// A command with its arguments, reading nothing from standard input.
pub fn command<A: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<std::ffi::OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs to the end and gives standard output.
///
/// # Errors
/// The program cannot be started, or ends with a failure: the error holds its last lines.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    judge(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end with this text as standard input and gives standard output.
///
/// # Errors
/// As for [`output`].
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read all says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    judge(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end with everything it says written to `log`.
///
/// # Errors
/// The program cannot be started, or ends with a failure: the error names the log and holds its last lines.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!(
            "{} failed ({status})\n{}\nthe whole log: {}",
            shown(command),
            last_words_of(log),
            log.display()
        );
    }
    Ok(())
}

/// Whether the program runs and ends well; what it says is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Asks again every 100 ms until the answer is yes.
///
/// # Errors
/// No yes within `limit`.
pub fn await_yes(what: &str, limit: Duration, mut asked: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !asked() {
        if Instant::now() > end {
            bail!("gave up after {} s waiting for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The last lines of a log, for an error message.
pub fn last_words_of(log: &Path) -> String {
    std::fs::read(log)
        .map(|bytes| last_lines(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

fn judge(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    bail!("{} failed ({})\n{}", shown(command), output.status, last_lines(&said))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(LAST_WORDS))
        .map(|line| format!("  | {line}\n"))
        .collect()
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().take(6) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if command.get_args().count() > 6 {
        text.push_str(" …");
    }
    text
}
