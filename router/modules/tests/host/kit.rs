//! Guests written by hand, for tests and benches: a core module of the world `filter` in text, put together from the parts
//! that a test cares about, and a message to judge. It knows the contract's binary layout, and nothing of the host's inside.
//!
//! A guest's memory: from 1024 the answer's record (at 1032 whether it has edits, from 1036 on their lists), from 2048
//! descriptions and fields, from 4096 verdicts, from 8192 edits, from 16384 room for texts, and from 65536 on what the host
//! allocates, taken back after every call.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "tests and benches each use a part of it, as a module of their own"
)]

use std::path::Path;
use std::sync::OnceLock;

use chaski_modules::{
    Compiled, Compiler, Description, Filter, Host, HostLimits, Limits, Message, Options, Param, TrustedKeys,
};

/// A guest to be.
#[derive(Clone)]
pub struct Guest {
    /// Whether its description says that it keeps state.
    pub keeps_state: bool,
    /// Its params: name, number of the kind, required.
    pub params: Vec<(&'static str, u8, bool)>,
    /// The fields that it declares: the number of the case, and the header's name.
    pub fields: Vec<(u8, &'static str)>,
    /// The body of `describe`, before it answers.
    pub describe: String,
    /// The body of `configure`, before it answers.
    pub configure: String,
    /// The body of `filter`, which leaves a pointer to an answer. Parameters: `$count`, `$now`, `$columns`, `$bytes`.
    pub filter: String,
    /// Further functions, globals, tables and data.
    pub more: String,
    /// Pages of memory.
    pub pages: u32,
}

/// Cases of `field`.
pub const TOPIC: u8 = 0;
pub const KEY: u8 = 1;
pub const HEADER: u8 = 3;
pub const PAYLOAD: u8 = 5;

impl Default for Guest {
    fn default() -> Guest {
        Guest {
            keeps_state: false,
            params: vec![],
            fields: vec![],
            describe: String::new(),
            configure: String::new(),
            filter: "(call $answer (local.get $count))".into(),
            more: String::new(),
            pages: 2,
        }
    }
}

impl Guest {
    /// The guest whose `filter` has this body.
    pub fn filter(body: &str) -> Guest {
        Guest { filter: body.into(), ..Guest::default() }
    }

    /// A filter that passes messages of which one header has a value of two bytes, `eu`, and drops all others.
    pub fn header_equals(payload_too: bool) -> Guest {
        let mut fields = vec![(HEADER, "region")];
        fields.extend(payload_too.then_some((PAYLOAD, "")));
        let filter = r#"
            (local $at i32) (local $start i32) (local $end i32)
            (local.set $start (i32.load (local.get $columns)))
            (block $done (loop $next
                (br_if $done (i32.ge_u (local.get $at) (local.get $count)))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (local.set $end (i32.load (i32.add (local.get $columns) (i32.shl (local.get $at) (i32.const 2)))))
                (i32.store8 offset=4095 (local.get $at) (i32.const 1))
                (if (i32.eq (i32.const 2)
                    (i32.and (i32.const 0x7fffffff) (i32.sub (local.get $end) (local.get $start)))) (then
                    (i32.store8 offset=4095 (local.get $at)
                        (i32.ne (i32.load16_u (i32.add (local.get $columns) (local.get $start))) (i32.const 0x7565)))))
                (local.set $start (local.get $end))
                (br $next)))
            (call $answer (local.get $count))"#;
        Guest { fields, ..Guest::filter(filter) }
    }

    /// A filter that does to each message what the first byte of its header `do` says. See `act` in the text.
    pub fn actor() -> Guest {
        let filter = r#"
            (local $at i32) (local $start i32)
            (block $done (loop $next
                (br_if $done (i32.ge_u (local.get $at) (local.get $count)))
                (local.set $start (i32.and (i32.const 0x7fffffff)
                    (i32.load (i32.add (local.get $columns) (i32.shl (local.get $at) (i32.const 2))))))
                (i32.store8 offset=4096 (local.get $at)
                    (call $act (i32.load8_u (i32.add (local.get $columns) (local.get $start)))))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br $next)))
            (call $answer (local.get $count))"#;
        let more = r#"
            (global $calls (mut i32) (i32.const 0))
            (func $act (param $what i32) (result i32)
                (if (i32.eq (local.get $what) (i32.const 100 (; d: drop ;))) (then (return (i32.const 1))))
                (if (i32.eq (local.get $what) (i32.const 116 (; t: trap ;))) (then (unreachable)))
                (if (i32.eq (local.get $what) (i32.const 115 (; s: spin ;))) (then (loop $spin (br $spin))))
                (if (i32.eq (local.get $what) (i32.const 114 (; r: recurse ;))) (then (return (call $recurse (i32.const 1)))))
                (if (i32.eq (local.get $what) (i32.const 109 (; m: memory, and trap without ;))) (then
                    (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then (unreachable)))))
                (if (i32.eq (local.get $what) (i32.const 113 (; q: ask for memory, and bear it ;))) (then
                    (drop (memory.grow (i32.const 1024)))))
                (if (i32.eq (local.get $what) (i32.const 112 (; p: panic ;))) (then
                    (call $log (i32.const 5) (i32.const 16384) (i32.const 19)) (unreachable)))
                (if (i32.eq (local.get $what) (i32.const 98 (; b: copy in bulk without end ;))) (then
                    (loop $copy (memory.copy (i32.const 0x20000) (i32.const 0) (i32.const 0x20000)) (br $copy))))
                ;; k: keep, which counts in the state and passes the first three
                (if (i32.eq (local.get $what) (i32.const 107)) (then (return (call $keep))))
                ;; T: write to the state, then trap
                (if (i32.eq (local.get $what) (i32.const 84)) (then (drop (call $keep)) (unreachable)))
                (i32.const 0))
            (func $recurse (param $n i32) (result i32)
                (i32.add (call $recurse (i32.add (local.get $n) (i32.const 1))) (local.get $n)))
            (func $keep (result i32)
                (call $state_get (i32.const 16448) (i32.const 1) (i32.const 3072))
                (i32.store8 (i32.const 16449) (i32.add (i32.const 1) (if (result i32) (i32.load8_u (i32.const 3072))
                    (then (i32.load8_u (i32.load (i32.const 3076)))) (else (i32.const 0)))))
                (call $state_put (i32.const 16448) (i32.const 1) (i32.const 16449) (i32.const 1)
                    (i32.const 0) (i64.const 0) (i32.const 3072))
                (i32.gt_u (i32.load8_u (i32.const 16449)) (i32.const 3)))
            (data (i32.const 16384) "boom, at lib.rs:1:1")
            (data (i32.const 16448) "n")"#;
        Guest { fields: vec![(HEADER, "do")], more: more.into(), pages: 4, ..Guest::filter(filter) }
    }

    /// The core module's text.
    pub fn text(&self) -> String {
        let Guest { keeps_state, params, fields, describe, configure, filter, more, pages } = self;
        let mut data = String::new();
        // Names lie from 2560 on, records of params from 2112 and of fields from 2304.
        let mut names = 2560_usize;
        let mut name = |text: &str, record: usize, data: &mut String| {
            let at = names;
            names += text.len();
            *data += &format!("(data (i32.const {at}) \"{text}\")\n");
            *data += &format!("(data (i32.const {record}) \"{}{}\")\n", word(at), word(text.len()));
        };
        name("guest", 2048, &mut data);
        name("1.0.0", 2056, &mut data);
        for (at, (param, kind, required)) in params.iter().enumerate() {
            let record = 2112 + 12 * at;
            name(param, record, &mut data);
            let (kind, required) = (byte(*kind), byte(u8::from(*required)));
            data += &format!("(data (i32.const {}) \"{kind}{required}\")\n", record + 8);
        }
        for (at, (case, header)) in fields.iter().enumerate() {
            let record = 2304 + 12 * at;
            data += &format!("(data (i32.const {record}) \"{}\")\n", byte(*case));
            name(header, record + 4, &mut data);
        }
        let keeps = byte(u8::from(*keeps_state));
        let (count, width) = (word(params.len()), word(fields.len()));
        let (params_at, fields_at) = (word(2112), word(2304));
        data += &format!("(data (i32.const 2064) \"{keeps}\\00\\00\\00{params_at}{count}\")\n");
        data += &format!("(data (i32.const 2100) \"{fields_at}{width}\")\n");
        format!(
            r#"(module
            (import "chaski:module/log@1.0.0" "write" (func $log (param i32 i32 i32)))
            (import "chaski:module/state@1.0.0" "get" (func $state_get (param i32 i32 i32)))
            (import "chaski:module/state@1.0.0" "put"
                (func $state_put (param i32 i32 i32 i32 i32 i64 i32)))
            (memory (export "memory") {pages})
            {ALLOCATOR}
            ;; An answer of this many verdicts, as they lie at 4096, without edits.
            (func $answer (param $verdicts i32) (result i32)
                (i32.store (i32.const 1024) (i32.const 4096))
                (i32.store (i32.const 1028) (local.get $verdicts))
                (i32.const 1024))
            (func (export "describe") (result i32) {describe} (i32.const 2048))
            (func (export "configure") (param $params i32) (param $given i32) (result i32) {configure} (i32.const 2096))
            (func (export "filter") (param $count i32) (param $now i64) (param $columns i32) (param $bytes i32)
                (result i32) {filter})
            (func (export "cabi_post_filter") (param i32) (global.set $free (i32.const 65536)))
            {more}
            {data})"#
        )
    }

    /// The core module, with the description of its world in it, as a toolchain leaves it.
    pub fn module(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).expect("the text is right");
        embed(&mut module, "filter");
        module
    }
}

/// What the host takes a guest's memory with, from 65536 on. A guest gives it back by setting `$free` to that again.
pub const ALLOCATOR: &str = r#"(global $free (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32)
                (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.set $free (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $free) (i32.shl (memory.size) (i32.const 16))) (then
                    (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
                        (i32.shr_u (local.get $size) (i32.const 16))))) (then (unreachable)))))
                (local.get $at))"#;

/// Puts the description of a world of the contract into a core module.
pub fn embed(module: &mut Vec<u8>, world: &str) {
    static CONTRACT: OnceLock<(wit_parser::Resolve, wit_parser::PackageId)> = OnceLock::new();
    let (resolve, package) = CONTRACT.get_or_init(|| {
        let mut resolve = wit_parser::Resolve::default();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
        let (package, _) = resolve.push_path(folder).expect("the contract can be read");
        (resolve, package)
    });
    let world = resolve.select_world(&[*package], Some(world)).expect("the contract has the world");
    wit_component::embed_component_metadata(module, resolve, world, wit_component::StringEncoding::UTF8)
        .expect("the module can be described");
}

fn word(number: usize) -> String {
    (number as u32).to_le_bytes().into_iter().map(byte).collect()
}

fn byte(number: u8) -> String {
    format!("\\{number:02x}")
}

/// A host that compiles in this process and keeps nothing on disk.
pub fn host() -> Host {
    host_with(Compiler::InProcess, None, HostLimits { instances: 16, ..HostLimits::default() })
}

pub fn host_with(compiler: Compiler, cache: Option<&Path>, limits: HostLimits) -> Host {
    let cache = cache.map(Path::to_path_buf);
    Host::new(Options { compiler, cache, keys: TrustedKeys::default(), limits }).expect("a host starts")
}

/// Takes, compiles and describes.
#[track_caller]
pub fn deploy(host: &Host, module: &[u8]) -> (Compiled, Description) {
    let binary = host.take(module, None).expect("it is taken");
    let compiled = host.compile(&binary).expect("it is compiled");
    let description = host.describe(&compiled, &Limits::default()).expect("it describes itself");
    (compiled, description)
}

/// A version of this guest, without params.
#[track_caller]
pub fn filter_of(host: &Host, guest: &Guest, limits: Limits) -> Filter {
    filter_with(host, guest, &[], limits)
}

#[track_caller]
pub fn filter_with(host: &Host, guest: &Guest, params: &[Param], limits: Limits) -> Filter {
    let (compiled, description) = deploy(host, &guest.module());
    host.filter("test", &compiled, &description, params, limits).expect("it is configured")
}

/// A message of a test.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub topic: String,
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub payload: Vec<u8>,
}

impl Sample {
    pub fn with(name: &str, value: &str) -> Sample {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Sample { topic: "orders.new".into(), headers, ..Sample::default() }
    }
}

impl Message for Sample {
    fn topic(&self) -> &str {
        &self.topic
    }
    fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
    fn id(&self) -> &str {
        "id"
    }
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    fn each_header(&self, each: &mut dyn FnMut(&str, &str)) {
        self.headers.iter().for_each(|(name, value)| each(name, value));
    }
    fn payload(&self) -> &[u8] {
        &self.payload
    }
    fn priority(&self) -> u8 {
        4
    }
    fn timestamp_ms(&self) -> u64 {
        0
    }
}

/// One message for each letter, with the letter in the header `do`.
pub fn samples(letters: &str) -> Vec<Sample> {
    letters.chars().map(|letter| Sample::with("do", &letter.to_string())).collect()
}
