//! `componentize MODULE COMPONENT`: makes a component of a core module that wit-bindgen built.
//!
//! The same as `wasm-tools strip` and `wasm-tools component new`, for machines that do not have that command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, component] = arguments.as_slice() else {
        bail!("usage: componentize MODULE COMPONENT");
    };
    let bytes =
        std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let stripped = strip(&bytes).with_context(|| format!("cannot strip {}", module.display()))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&stripped)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("cannot make a component of {}", module.display()))?;
    let temporary = component.with_extension("wasm.new");
    std::fs::write(&temporary, encoded)
        .with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, component)
        .with_context(|| format!("cannot write {}", component.display()))
}

/// Without the custom sections that only debuggers read; those of wit-bindgen say what the component is.
fn strip(module: &[u8]) -> Result<Vec<u8>> {
    const HEADER: usize = 8;
    const CUSTOM: u8 = 0;
    if module.len() < HEADER || !module.starts_with(b"\0asm\x01\0\0\0") {
        bail!("not a core WebAssembly module");
    }
    let (header, mut rest) = module.split_at(HEADER);
    let mut kept = header.to_vec();
    while let Some((&id, after_id)) = rest.split_first() {
        let (length, payload) = leb128(after_id)?;
        let Some(body) = payload.get(..length) else {
            bail!("a section is longer than the file");
        };
        let after = &payload[length..];
        let whole = &rest[..rest.len() - after.len()];
        if id != CUSTOM || !is_for_debuggers(body)? {
            kept.extend_from_slice(whole);
        }
        rest = after;
    }
    Ok(kept)
}

fn is_for_debuggers(section: &[u8]) -> Result<bool> {
    let (length, rest) = leb128(section)?;
    let Some(name) = rest.get(..length) else {
        bail!("a section's name is longer than the section");
    };
    Ok(name == b"name"
        || name == b"producers"
        || name == b"target_features"
        || name.starts_with(b".debug"))
}

fn leb128(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    bail!("a length is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    fn custom(name: &str) -> Vec<u8> {
        let mut section = vec![0, u8::try_from(name.len() + 1).unwrap()];
        section.push(u8::try_from(name.len()).unwrap());
        section.extend_from_slice(name.as_bytes());
        section
    }

    #[test]
    fn strips_what_debuggers_read_and_nothing_else() {
        let types = [1, 1, 0];
        let module =
            [EMPTY, &custom("name"), &types, &custom("component-type:x"), &custom(".debug_info")]
                .concat();
        let expected = [EMPTY, &types[..], &custom("component-type:x")].concat();
        assert_eq!(strip(&module).unwrap(), expected);
    }

    #[test]
    fn refuses_what_is_no_module() {
        for (bytes, message) in [
            (b"".to_vec(), "not a core WebAssembly module"),
            (b"\0asm\x0d\0\x01\0".to_vec(), "not a core WebAssembly module"),
            ([EMPTY, &[1, 9, 0]].concat(), "a section is longer than the file"),
            ([EMPTY, &[1, 0x80]].concat(), "a length is cut off"),
            ([EMPTY, &[0, 2, 9, 0]].concat(), "a section's name is longer than the section"),
        ] {
            assert_eq!(strip(&bytes).unwrap_err().to_string(), message);
        }
    }
}
