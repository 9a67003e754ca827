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

const HEADER: usize = 8;
/// Ids of sections (WebAssembly's and the component model's binary formats).
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// Without the custom sections that only debuggers read; those of wit-bindgen say what the component is.
fn strip(module: &[u8]) -> Result<Vec<u8>, String> {
    if module.len() < HEADER || !module.starts_with(b"\0asm\x01\0\0\0") {
        return Err("not a core WebAssembly module".to_owned());
    }
    stripped(module, &[])
}

/// The same for a component: in itself, and in the modules and components within.
///
/// # Errors
///
/// Says what is wrong with it.
pub(super) fn strip_component(component: &[u8]) -> Result<Vec<u8>, String> {
    if component.len() < HEADER || !component.starts_with(b"\0asm\x0d\0\x01\0") {
        return Err("not a WebAssembly component".to_owned());
    }
    stripped(component, &[CORE_MODULE, COMPONENT])
}

/// `nested` are the sections that are a module or a component by themselves.
fn stripped(binary: &[u8], nested: &[u8]) -> Result<Vec<u8>, String> {
    let (header, mut rest) = binary.split_at(HEADER);
    let mut kept = header.to_vec();
    while let Some((&id, after_id)) = rest.split_first() {
        let (length, payload) = leb128(after_id)?;
        let body = payload.get(..length).ok_or("a section is longer than the file")?;
        let after = &payload[length..];
        let whole = &rest[..rest.len() - after.len()];
        if nested.contains(&id) {
            let inner = if id == CORE_MODULE { strip(body)? } else { strip_component(body)? };
            kept.push(id);
            kept.extend(length_of(&inner)?);
            kept.extend(inner);
        } else if id != CUSTOM || !is_for_debuggers(body)? {
            kept.extend_from_slice(whole);
        }
        rest = after;
    }
    Ok(kept)
}

/// As LEB128.
fn length_of(section: &[u8]) -> Result<Vec<u8>, String> {
    let mut left = u32::try_from(section.len()).map_err(|_| "a section is too long")?;
    let mut bytes = Vec::with_capacity(5);
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            bytes.push(low);
            return Ok(bytes);
        }
        bytes.push(low | 0x80);
    }
}

fn is_for_debuggers(section: &[u8]) -> Result<bool, String> {
    let (length, rest) = leb128(section)?;
    let name = rest.get(..length).ok_or("a section's name is longer than the section")?;
    Ok(name == b"name"
        || name == b"component-name"
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
    fn a_component_is_stripped_all_the_way_down() {
        let text = r#"(component $outer
            (component $inner (core module $m (func $named (export "f")) (memory 1)))
            (core module $n (func $also_named (export "g") (result i32) (i32.const 7)))
            (core instance $i (instantiate $n))
            (func $run (export "run") (result u32) (canon lift (core func $i "g"))))"#;
        let component = wat::parse_str(text).unwrap();
        let stripped = strip_component(&component).unwrap();
        assert!(stripped.len() < component.len());
        for name in ["named", "inner", "outer"] {
            let has = |bytes: &[u8]| bytes.windows(name.len()).any(|part| part == name.as_bytes());
            assert!(has(&component) && !has(&stripped), "{name}");
        }
        let decoded = wit_component::decode(&stripped).unwrap();
        assert!(matches!(decoded, wit_component::DecodedWasm::Component(..)));
        assert_eq!(strip_component(&stripped).unwrap(), stripped);
        for length in [0_usize, 127, 128, 300_000] {
            let written = length_of(&vec![0; length]).unwrap();
            assert_eq!(leb128(&written).unwrap().0, length);
        }
        assert!(strip_component(b"\0asm\x01\0\0\0").is_err());
        assert!(strip_component(&component[..component.len() / 2]).is_err());
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
