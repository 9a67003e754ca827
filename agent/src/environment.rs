//! Getting the secrets out of the environment.
//!
//! Whatever is in a process's environment when it starts stays readable in `/proc/<pid>/environ`,
//! also after the variable is removed. So the agent lives twice: the first life checks the settings,
//! puts them into a pipe and replaces itself by itself (`exec` keeps the pid, so this works for PID 1)
//! with a clean environment and the pipe as standard input. The pipe's content exists once: when the
//! second life has read it, it is gone. Standard input is used because it is the one descriptor that
//! can be handed to `exec` and read afterwards without unsafe code.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, fs};

use crate::settings::{self, Settings};

/// The argument by which the second life knows itself.
pub(crate) const HANDED_OVER: &str = "--settings-on-stdin";

/// What Docker's and Debian's `PATH` is.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces this process by its second life; returns only the reason why that failed.
pub(crate) fn start_afresh(settings: &Settings) -> io::Error {
    // The settings are some hundred bytes; the smallest pipe that Linux gives holds 4,096.
    let input = settings.to_lines().map_err(io::Error::other).and_then(|lines| {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(lines.as_bytes())?;
        Ok(reader)
    });
    let executable = env::current_exe();
    match (input, executable) {
        (Ok(input), Ok(executable)) => Command::new(executable)
            .arg(HANDED_OVER)
            .env_clear()
            .envs(for_scripts())
            .stdin(input)
            .exec(),
        (Err(error), _) | (_, Err(error)) => error,
    }
}

/// Reads the settings in the second life.
///
/// # Errors
///
/// Returns every mistake, as [`Settings::read`].
pub(crate) fn take_over() -> Result<Settings, Vec<String>> {
    let mut lines = String::new();
    io::stdin()
        .lock()
        .read_to_string(&mut lines)
        .map_err(|error| vec![format!("cannot read the settings from standard input: {error}")])?;
    Settings::from_lines(&lines)
}

/// The environment of the second life, which is the environment of the scripts: this one without the
/// agent's own values, and with what a shell expects and a bare container may lack.
fn for_scripts() -> Vec<(OsString, OsString)> {
    let mut variables: Vec<_> =
        env::vars_os().filter(|(name, _)| settings::is_for_scripts(name.as_bytes())).collect();
    let user = user();
    let home = env::home_dir().map_or_else(|| "/".into(), OsString::from);
    for (name, value) in
        [("PATH", DEFAULT_PATH.into()), ("HOME", home), ("USER", user.clone()), ("LOGNAME", user)]
    {
        if !variables.iter().any(|(existing, _)| existing == name) {
            variables.push((name.into(), value));
        }
    }
    variables
}

/// The name of this process's user, or the number where the image has no name for it.
fn user() -> OsString {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, &uid).map_or_else(|| uid.clone().into(), OsString::from)
}

fn name_in<'a>(passwd: &'a str, uid: &str) -> Option<&'a str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nbuild:x:1000:1000::/home/build:/bin/sh\n";
        for (uid, expected) in
            [("0", Some("root")), ("1000", Some("build")), ("1", None), ("", None)]
        {
            assert_eq!(name_in(passwd, uid), expected, "{uid}");
        }
    }
}
