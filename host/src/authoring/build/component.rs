//! From a core module to a component: what `wasm-tools strip` and `wasm-tools component new` do.

use wit_component::ComponentEncoder;

/// A component of `module`, which wit-bindgen's macros have marked with its world.
///
/// # Errors
///
/// Says what is wrong with the module.
pub(super) fn new(module: &[u8]) -> Result<Vec<u8>, String> {
    let stripped = strip(module)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&stripped)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
}

/// Without the custom sections that only debuggers read; those of wit-bindgen say what the component is.
fn strip(module: &[u8]) -> Result<Vec<u8>, String> {
    const HEADER: usize = 8;
    const CUSTOM: u8 = 0;
    if module.len() < HEADER || !module.starts_with(b"\0asm\x01\0\0\0") {
        return Err("not a core WebAssembly module".to_owned());
    }
    let (header, mut rest) = module.split_at(HEADER);
    let mut kept = header.to_vec();
    while let Some((&id, after_id)) = rest.split_first() {
        let (length, payload) = leb128(after_id)?;
        let body = payload.get(..length).ok_or("a section is longer than the file")?;
        let after = &payload[length..];
        let whole = &rest[..rest.len() - after.len()];
        if id != CUSTOM || !is_for_debuggers(body)? {
            kept.extend_from_slice(whole);
        }
        rest = after;
    }
    Ok(kept)
}

fn is_for_debuggers(section: &[u8]) -> Result<bool, String> {
    let (length, rest) = leb128(section)?;
    let name = rest.get(..length).ok_or("a section's name is longer than the section")?;
    Ok(name == b"name"
        || name == b"producers"
        || name == b"target_features"
        || name.starts_with(b".debug"))
}

fn leb128(bytes: &[u8]) -> Result<(usize, &[u8]), String> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err("a length is cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debuggers_sections_go_and_the_others_stay() {
        let custom = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            [&[0, length + 1, length][..], name.as_bytes()].concat()
        };
        let header = b"\0asm\x01\0\0\0";
        let module =
            [&header[..], &custom("name"), &[1, 1, 0], &custom("component-type:x")].concat();
        let expected = [&header[..], &[1, 1, 0], &custom("component-type:x")].concat();
        assert_eq!(strip(&module).unwrap(), expected);
    }

    #[test]
    fn what_is_no_module_is_told() {
        for (bytes, message) in [
            (&b""[..], "not a core WebAssembly module"),
            (b"\0asm\x0d\0\x01\0", "not a core WebAssembly module"),
            (b"\0asm\x01\0\0\0\x01\x09\0", "a section is longer than the file"),
            (b"\0asm\x01\0\0\0\x01\x80", "a length is cut off"),
        ] {
            assert_eq!(new(bytes).unwrap_err(), message);
        }
        assert!(new(b"\0asm\x01\0\0\0").is_ok(), "an empty module is an empty component");
    }
}
