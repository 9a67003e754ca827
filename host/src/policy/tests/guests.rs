//! Small guests, written as text: each does one thing that a policy should not do, or the least that one does.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The functions of a placer; what is not given does nothing wrong.
pub(crate) struct Guest {
    /// Core imports, in text.
    pub(crate) imports: &'static str,
    /// Data, beyond what the defaults need: addresses from 2,048 to 4,095 are free.
    pub(crate) data: &'static str,
    pub(crate) describe: &'static str,
    pub(crate) validate_settings: &'static str,
    pub(crate) place: &'static str,
    /// Further functions of the module.
    pub(crate) functions: &'static str,
    /// A WIT package with a world `guest`, where the interface's own worlds do not do.
    pub(crate) wit: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            imports: "",
            data: "",
            // Zeros are empty strings, empty lists and `none`.
            describe: "i32.const 0",
            validate_settings: "i32.const 0",
            place: ABSTAIN,
            functions: "",
            wit: "",
        }
    }
}

/// The shapes of WASI's functions that the guests here call, and a world that has them.
const WASI: &str = r#"
    package test:guest;
    world guest {
        include pointsman:policy/placement-policy@0.1.0;
        import wasi:cli/environment@0.2.0;
        import wasi:cli/exit@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        import wasi:random/random@0.2.0;
        import wasi:io/poll@0.2.0;
    }
    package wasi:cli@0.2.0 {
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
        interface exit { exit: func(status: result); }
    }
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            now: func() -> u64;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }
    package wasi:random@0.2.0 {
        interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }
    }
"#;

const WASI_IMPORTS: &str = r#"
    (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
    (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
    (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
    (import "wasi:random/random@0.2.0" "get-random-bytes" (func $bytes (param i64 i32)))
"#;

/// For [`Guest::with_wasi`]: crashes when anything of the outside is to be seen.
pub(crate) const SEES_NOTHING: &str = "(local $first i64)
    (call $environment (i32.const 2048)) (if (i32.load (i32.const 2052)) (then unreachable))
    (call $directories (i32.const 2048)) (if (i32.load (i32.const 2052)) (then unreachable))
    (if (i64.ne (call $now) (i64.const 0)) (then unreachable))
    (local.set $first (call $random))
    (if (i64.ne (local.get $first) (call $random)) (then unreachable))
    i32.const 1024";

/// For [`Guest::wit`]: a placer with the hook after a lost attempt.
pub(crate) const WITH_HOOK: &str = r"
    package test:guest;
    world guest {
        include pointsman:policy/placement-policy@0.1.0;
        include pointsman:policy/recovery-hook@0.1.0;
    }
";

/// A `decision` in memory whose first byte is the case.
pub(crate) const ABSTAIN: &str = "i32.const 1024";

impl Guest {
    pub(crate) fn placer(&self) -> Vec<u8> {
        self.component(
            "placement-policy",
            "placer@0.1.0#place",
            "(param i32 i32) (result i32)",
            self.place,
        )
    }

    /// `check` gets the candidate as a pointer, since it has too many fields for parameters.
    pub(crate) fn guard(check: &str) -> Vec<u8> {
        Self::default().component(
            "guard-policy",
            "guard@0.1.0#check",
            "(param i32) (result i32)",
            check,
        )
    }

    pub(crate) fn mutator(mutate: &str) -> Vec<u8> {
        Self::default().component(
            "mutation-policy",
            "mutator@0.1.0#mutate",
            "(param i32 i32 i32 i32) (result i32)",
            mutate,
        )
    }

    /// A placer that imports WASI.
    pub(crate) fn with_wasi(place: &'static str) -> Vec<u8> {
        Self { imports: WASI_IMPORTS, wit: WASI, place, ..Self::default() }.placer()
    }

    fn component(&self, world: &str, function: &str, signature: &str, body: &str) -> Vec<u8> {
        let module = format!(
            r#"(module
                {imports}
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 8192))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                    (global.set $next (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (data (i32.const 1024) "\01")
                {data}
                (func (export "pointsman:policy/lifecycle@0.1.0#describe") (result i32) {describe})
                (func (export "pointsman:policy/lifecycle@0.1.0#validate-settings")
                    (param i32 i32) (result i32) {validate_settings})
                (func (export "pointsman:policy/{function}") {signature} {body})
                {functions}
            )"#,
            functions = self.functions,
            imports = self.imports,
            data = self.data,
            describe = self.describe,
            validate_settings = self.validate_settings,
        );
        let mut module = wat::parse_str(&module).unwrap();
        let mut resolve = Resolve::default();
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy.wit");
        let package = resolve.push_file(wit).unwrap();
        let (package, world) = match self.wit {
            "" => (package, world),
            wit => (resolve.push_str("guest.wit", wit).unwrap(), "guest"),
        };
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
    }
}

/// One placement in a guest's memory, as the canonical ABI lays it out; what is not given is a good one's.
pub(crate) struct RawPlacement {
    /// Address and length.
    pub(crate) cluster: (u32, u32),
    pub(crate) task_definition: (u32, u32),
    pub(crate) arch: u8,
    pub(crate) capacity: u8,
    pub(crate) cpu_units: Option<u32>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) ephemeral_storage_gib: Option<u32>,
    pub(crate) role: Option<(u32, u32)>,
    /// Address and number of pairs of texts.
    pub(crate) labels: (u32, u32),
    pub(crate) extra: (u32, u32),
    pub(crate) reason: (u32, u32),
}

/// Where [`RawPlacement::answer`] puts the texts that a good placement names.
const NAMES: u32 = 2048;
/// And those that no good one names, as address and length: `nowhere`, which is in no catalog, and `prod` and
/// `admin`, a cluster and a role that there are and that the bounds do not allow.
pub(crate) const NOWHERE: (u32, u32) = (NAMES + 48, 7);
pub(crate) const PROD: (u32, u32) = (NAMES + 64, 4);
pub(crate) const ADMIN: (u32, u32) = (NAMES + 80, 5);
/// Where it puts the decision.
pub(crate) const DECISION: u32 = 2304;
/// Where it puts the first placement.
pub(crate) const FIRST: u32 = DECISION + 16;
/// Where in a placement the value of its CPU units lies.
pub(crate) const CPU_UNITS: u32 = 24;

impl Default for RawPlacement {
    fn default() -> Self {
        Self {
            cluster: (NAMES, 3),
            task_definition: (NAMES + 16, 4),
            arch: 0,
            capacity: 0,
            cpu_units: None,
            memory_mib: None,
            ephemeral_storage_gib: None,
            role: None,
            labels: (0, 0),
            extra: (0, 0),
            reason: (NAMES + 32, 7),
        }
    }
}

impl RawPlacement {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        let pair = |bytes: &mut Vec<u8>, (at, length): (u32, u32)| {
            bytes.extend(at.to_le_bytes());
            bytes.extend(length.to_le_bytes());
        };
        let option = |bytes: &mut Vec<u8>, value: Option<u32>| {
            bytes.extend(u32::from(value.is_some()).to_le_bytes());
            bytes.extend(value.unwrap_or(0).to_le_bytes());
        };
        pair(&mut bytes, self.cluster);
        pair(&mut bytes, self.task_definition);
        bytes.extend([self.arch, self.capacity, 0, 0]);
        option(&mut bytes, self.cpu_units);
        option(&mut bytes, self.memory_mib);
        option(&mut bytes, self.ephemeral_storage_gib);
        bytes.extend(u32::from(self.role.is_some()).to_le_bytes());
        pair(&mut bytes, self.role.unwrap_or((0, 0)));
        pair(&mut bytes, self.labels);
        pair(&mut bytes, self.extra);
        pair(&mut bytes, self.reason);
        assert_eq!(bytes.len(), 80);
        bytes
    }

    /// Data for [`Guest::data`]: the decision at [`DECISION`] places on `placements`, of which there are few.
    pub(crate) fn answer(placements: &[Self]) -> &'static str {
        let mut decision = vec![0; 4];
        decision.extend(FIRST.to_le_bytes());
        decision.extend(u32::try_from(placements.len()).unwrap().to_le_bytes());
        let list: Vec<u8> = placements.iter().flat_map(Self::bytes).collect();
        let names = [(NAMES, "dev"), (NAMES + 16, "node"), (NAMES + 32, "because")];
        let others = [(NOWHERE.0, "nowhere"), (PROD.0, "prod"), (ADMIN.0, "admin")];
        let text = |(at, name)| format!(r#"(data (i32.const {at}) "{name}")"#);
        let mut text: String = names.into_iter().chain(others).map(text).collect();
        for (at, bytes) in [(DECISION, decision), (FIRST, list)] {
            let hex: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            text.push_str(&format!(r#"(data (i32.const {at}) "{hex}")"#));
        }
        // Guests hold literals elsewhere; a test's few bytes may stay.
        text.leak()
    }
}
