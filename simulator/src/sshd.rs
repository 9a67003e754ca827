//! A stock sshd, set up as the entry script of an image would: one key may log in, the host key is the injected one
//! or new.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// Writes key files and configuration below `directory`; the command that starts the server.
pub(crate) fn command(
    sshd: &Path,
    directory: &Path,
    listen: SocketAddrV4,
    environment: &BTreeMap<String, String>,
) -> io::Result<Vec<OsString>> {
    let own = directory.join(".sshd");
    fs::DirBuilder::new().mode(0o700).create(&own)?;
    let variable = |name: &str| environment.get(name).map(String::as_str);
    write_private(&own.join("authorized_keys"), variable("SSH_PUBLIC_KEY").unwrap_or_default())?;
    write_private(&own.join("host_key"), &host_key(variable("POINTSMAN_HOST_KEY"))?)?;
    let configuration = configuration(directory, &own, listen);
    let file = own.join("sshd_config");
    write_private(&file, &configuration)?;
    ensure_privilege_separation_directory()?;
    // -D: stay in the foreground, -e: log to stderr. sshd insists on its absolute path.
    Ok(vec![sshd.into(), "-D".into(), "-e".into(), "-f".into(), file.into()])
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")
}

/// An OpenSSH private key file, of the injected seed when there is one.
fn host_key(injected: Option<&str>) -> io::Result<String> {
    let seed: [u8; 32] = match injected {
        None => rand::random(),
        Some(text) => STANDARD_NO_PAD
            .decode(text)
            .or_else(|_| STANDARD.decode(text))
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| io::Error::other("POINTSMAN_HOST_KEY is not 32 bytes in base64"))?,
    };
    let key = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(key, "simulated task").map_err(io::Error::other)?;
    Ok(key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.to_string())
}

fn configuration(directory: &Path, own: &Path, listen: SocketAddrV4) -> String {
    let file = |name: &str| own.join(name).display().to_string();
    // Percent signs are tokens in this keyword's value alone.
    let authorized = file("authorized_keys").replace('%', "%%");
    let root = directory.display();
    let lines = [
        format!("ListenAddress {}:{}", listen.ip(), listen.port()),
        format!("HostKey \"{}\"", file("host_key")),
        format!("AuthorizedKeysFile \"{authorized}\""),
        // The directory's parents may belong to anybody.
        "StrictModes no".to_owned(),
        "UsePAM no".to_owned(),
        "PidFile none".to_owned(),
        "PermitRootLogin yes".to_owned(),
        "PasswordAuthentication no".to_owned(),
        "KbdInteractiveAuthentication no".to_owned(),
        "PrintMotd no".to_owned(),
        // The driver opens many connections at once.
        "MaxStartups 1000".to_owned(),
        // A script must not write to the home directory of whoever runs the simulation.
        format!("SetEnv \"POINTSMAN_TASK_ROOT={root}\" \"HOME={root}\""),
    ];
    lines.join("\n")
}

/// sshd as root refuses to start without it; distributions make it when their own service starts.
fn ensure_privilege_separation_directory() -> io::Result<()> {
    let directory = Path::new("/run/sshd");
    if !rustix::process::geteuid().is_root() || directory.exists() {
        return Ok(());
    }
    match fs::create_dir(directory) {
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(0o755)),
        // Another simulator was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::host_key;

    /// RFC 8032, section 7.1, test 1.
    const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn an_injected_seed_is_the_host_key() {
        for seed in [SEED.to_owned(), format!("{SEED}=")] {
            let text = host_key(Some(&seed)).unwrap();
            let key = ssh_key::PrivateKey::from_openssh(&text).unwrap();
            let public = key.public_key().key_data().ed25519().unwrap().0;
            assert_eq!(public.map(|byte| format!("{byte:02x}")).concat(), PUBLIC);
        }
    }

    #[test]
    fn a_bad_seed_is_refused() {
        for seed in ["", "AAAA", "*"] {
            assert!(host_key(Some(seed)).is_err(), "{seed}");
        }
        assert!(host_key(None).is_ok());
    }
}
