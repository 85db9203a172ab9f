//! From bytes to a version: what is taken, what is refused and with which sentence, compilation in a child, and the cache.

use std::fs;
use std::time::Duration;

use chaski_modules::{
    CompileError, CompileLimits, Compiler, ConfigureError, Context, Description, Digest, Host, HostLimits,
    Kind, Limits, Options, Param, ParamSpec, TakeError, TrustedKeys, Value, Verdict, World,
};

use crate::by_hand::{aggregator, compensator};
use crate::kit::{Guest, deploy, embed, filter_of, filter_with, host, host_with, samples};

fn child() -> Compiler {
    Compiler::Child { program: env!("CARGO_BIN_EXE_chaski-modules-compile").into(), args: vec![] }
}

#[track_caller]
fn refused(bytes: &[u8], sentence: &str) {
    let error = host().take(bytes, None).unwrap_err().to_string();
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn a_core_module_becomes_a_component_and_a_component_stays_as_it_is() {
    let host = host();
    let module = Guest::actor().module();
    let binary = host.take(&module, None).unwrap();
    assert_eq!((binary.digest(), binary.world()), (Digest::of(&module), World::Filter));
    let component = binary.component();
    let same = host.take(component, None).unwrap();
    assert_eq!((same.component(), same.digest()), (component, Digest::of(component)));
    let (compiled, description) = deploy(&host, component);
    let filter = host.filter("test", &compiled, &description, &[], Limits::default()).unwrap();
    assert_eq!(filter.judge(&samples("d"), &Context::default()).unwrap().outcomes, [Ok(Verdict::Drop)]);
}

#[test]
fn a_module_describes_itself() {
    let params = vec![("region", 0, true), ("limit", 1, false), ("table", 4, false)];
    let (compiled, description) =
        deploy(&host(), &Guest { params, keeps_state: true, ..Guest::default() }.module());
    assert_eq!(compiled.world(), World::Filter);
    let spec = |name: &str, kind, required| ParamSpec { name: name.into(), kind, required };
    let wanted = Description {
        name: "guest".into(),
        version: "1.0.0".into(),
        keeps_state: true,
        advances: false,
        params: vec![
            spec("region", Kind::Text, true),
            spec("limit", Kind::Integer, false),
            spec("table", Kind::Json, false),
        ],
    };
    assert_eq!(description, wanted);
}

#[test]
fn wrong_params_are_found_before_configure() {
    let host = host();
    // It would trap if it were asked.
    let guest =
        Guest { params: vec![("region", 0, true)], configure: "(unreachable)".into(), ..Guest::default() };
    let (compiled, description) = deploy(&host, &guest.module());
    let params = [Param { name: "regoin".into(), value: Value::Text("eu".into()) }];
    let error = host.filter("test", &compiled, &description, &params, Limits::default()).unwrap_err();
    assert!(matches!(error, ConfigureError::Params(_)));
    assert!(error.to_string().contains("did you mean `region`?"), "{error}");
}

#[test]
fn params_reach_configure_and_a_refusal_is_told_with_its_sentence() {
    let host = host();
    // Refuses, with the text of its first param as the sentence, when that is a text; takes it when it is true.
    let configure = r#"
        (if (i32.eqz (i32.load8_u offset=8 (local.get $params))) (then
            (i32.store8 (i32.const 1100) (i32.const 1))
            (i32.store (i32.const 1104) (i32.load offset=16 (local.get $params)))
            (i32.store (i32.const 1108) (i32.load offset=20 (local.get $params)))
            (return (i32.const 1100))))"#;
    let guest =
        |kind| Guest { params: vec![("p", kind, true)], configure: configure.into(), ..Guest::default() };
    let text = [Param { name: "p".into(), value: Value::Text("no such region".into()) }];
    let (compiled, description) = deploy(&host, &guest(0).module());
    let error = host.filter("test", &compiled, &description, &text, Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the module refuses its params: no such region");
    let truth = [Param { name: "p".into(), value: Value::Boolean(true) }];
    let falsehood = [Param { name: "p".into(), value: Value::Boolean(false) }];
    let one = filter_with(&host, &guest(3), &truth, Limits::default());
    let other = filter_with(&host, &guest(3), &falsehood, Limits::default());
    assert_eq!(one.id().binary, other.id().binary);
    assert_ne!(one.id().params, other.id().params, "a version is the binary with its params");
}

#[test]
fn what_is_no_module_is_refused_with_what_to_do() {
    refused(b"", "no WebAssembly");
    refused(b"#!/bin/sh\n", "no WebAssembly");
    refused(b"\x7fELF\x02\x01\x01", "precompiled code, which is never taken");
    refused(b"\0asm\x01\0\0\0\xff", "not valid WebAssembly");
    let plain = wat::parse_str("(module)").unwrap();
    refused(&plain, "build it with the guest SDK");
    let component = wat::parse_str("(component)").unwrap();
    refused(&component, "none of the worlds filter, aggregator and compensator");
    let wasi = wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#).unwrap();
    refused(&wasi, "componentize-py pass `--stub-wasi`");
    let preview1 =
        wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#)
            .unwrap();
    refused(&preview1, "imports `wasi_snapshot_preview1`");
    let other = wat::parse_str(r#"(module (import "env" "puts" (func)))"#).unwrap();
    refused(&other, "imports `env`, which the router does not give: a symbol was left undefined");
    let memory64 = wat::parse_str("(module (memory i64 1))").unwrap();
    refused(&memory64, "not valid WebAssembly");
    let memories = wat::parse_str("(module (memory 1) (memory 1))").unwrap();
    refused(&memories, "not valid WebAssembly");
}

/// A module that describes itself as a filter and lacks the exports is refused, and so is one of another version's types.
#[test]
fn a_module_of_the_wrong_shape_is_refused() {
    let mut hollow = wat::parse_str(r#"(module (memory (export "memory") 1))"#).unwrap();
    embed(&mut hollow, "filter");
    refused(&hollow, "cannot be made a component");
    let shape = r#"(component
        (core module $m (func (export "f") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $f (result u32) (canon lift (core func $i "f")))
        (export "describe" (func $f)) (export "configure" (func $f)) (export "filter" (func $f)))"#;
    let host = host();
    let binary = host.take(&wat::parse_str(shape).unwrap(), None).unwrap();
    let Err(error) = host.compile(&binary) else { panic!() };
    assert!(error.to_string().contains("not those of the contract"), "{error}");
}

#[test]
fn a_module_of_another_world_is_not_what_is_asked_for() {
    let host = host();
    let limits = Limits::default;
    let (compiled, description) = deploy(&host, &aggregator());
    assert_eq!(compiled.world(), World::Aggregator);
    let error = host.filter("test", &compiled, &description, &[], limits()).unwrap_err();
    assert_eq!(error.to_string(), "the module is an aggregator, and a filter is needed here");
    let error = host.compensator("test", &compiled, &description, &[], limits()).unwrap_err();
    assert_eq!(error.to_string(), "the module is an aggregator, and a compensator is needed here");
    let (compiled, description) = deploy(&host, &compensator());
    assert_eq!((compiled.world(), description.advances), (World::Compensator, true));
    let error = host.filter("test", &compiled, &description, &[], limits()).unwrap_err();
    assert_eq!(error.to_string(), "the module is a compensator, and a filter is needed here");
    let (compiled, description) = deploy(&host, &Guest::default().module());
    let error = host.aggregator("test", &compiled, &description, &[], limits()).unwrap_err();
    assert_eq!(error.to_string(), "the module is a filter, and an aggregator is needed here");
}

#[test]
fn a_binary_beyond_the_limit_is_refused() {
    let module = Guest::default().module();
    let limits = HostLimits { binary_bytes: module.len(), instances: 1, ..HostLimits::default() };
    assert!(host_with(Compiler::InProcess, None, limits.clone()).take(&module, None).is_ok());
    let limits = HostLimits { binary_bytes: module.len() - 1, ..limits };
    let error = host_with(Compiler::InProcess, None, limits).take(&module, None).unwrap_err();
    assert!(matches!(error, TakeError::TooLarge { .. }), "{error}");
}

#[test]
fn with_trusted_keys_an_unsigned_binary_is_refused() {
    // The public key of RFC 8032, section 7.1, test 1.
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let key = format!("sha256:{key}").parse::<Digest>().unwrap().0;
    let keys = TrustedKeys::new(&[key]).unwrap();
    let limits = HostLimits { instances: 1, ..HostLimits::default() };
    let host = Host::new(Options { compiler: Compiler::InProcess, cache: None, keys, limits }).unwrap();
    let module = Guest::default().module();
    assert!(matches!(host.take(&module, None), Err(TakeError::Signature(_))));
    assert!(matches!(host.take(&module, Some(&[0; 64])), Err(TakeError::Signature(_))));
}

#[test]
fn a_child_compiles_what_this_process_runs() {
    let host = host_with(child(), None, HostLimits { instances: 4, ..HostLimits::default() });
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    assert_eq!(filter.judge(&samples("d"), &Context::default()).unwrap().outcomes, [Ok(Verdict::Drop)]);
}

/// It stands back behind whoever serves, and leaves no core file, however it dies.
#[test]
fn a_compilation_is_nice_and_dumps_no_core() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let Compiler::Child { program, .. } = child() else { unreachable!("it is a child") };
    let compiler = Compiler::Child { program, args: vec![told.clone().into()] };
    // Further back than this process, wherever that stands.
    let before = rustix::process::getpriority_process(None).unwrap();
    let compile = CompileLimits { nice: 3, ..CompileLimits::default() };
    let host = host_with(compiler, None, HostLimits { instances: 1, compile, ..HostLimits::default() });
    host.compile(&host.take(&Guest::default().module(), None).unwrap()).unwrap();
    let nice = (before + 3).min(19);
    assert_eq!(fs::read_to_string(told).unwrap(), format!("nice {nice}, core Some(0) Some(0)"));
    assert_eq!(CompileLimits::default().nice, 10);
}

/// A module of many functions, which take long to compile: several seconds on any machine.
fn bomb() -> Vec<u8> {
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 3)) (local.get 0)))".repeat(20_000);
    let functions = format!("(func (param i32) (result i32) {body} (local.get 0))").repeat(30);
    Guest { more: functions, ..Guest::default() }.module()
}

#[test]
fn a_compile_bomb_kills_only_its_child() {
    let compile_within = |module: &[u8], limits: CompileLimits| {
        let host =
            host_with(child(), None, HostLimits { instances: 1, compile: limits, ..HostLimits::default() });
        let Err(error) = host.compile(&host.take(module, None).unwrap()) else { panic!("it was compiled") };
        error
    };
    let bomb = bomb();
    let compile = |limits| compile_within(&bomb, limits);
    let limits = CompileLimits { address_space: 200 * 1024 * 1024, ..CompileLimits::default() };
    let error = compile(limits);
    assert!(matches!(error, CompileError::Died { .. } | CompileError::Refused { .. }), "{error}");
    let error = compile(CompileLimits { cpu_seconds: 1, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::CpuTime { seconds: 1 }), "{error}");
    let error = compile(CompileLimits { wall: Duration::from_millis(1), ..CompileLimits::default() });
    assert!(matches!(error, CompileError::WallTime { .. }), "{error}");
    let small = Guest::default().module();
    let error = compile_within(&small, CompileLimits { code_bytes: 100, ..CompileLimits::default() });
    assert!(matches!(error, CompileError::TooLarge { limit: 100 }), "{error}");
}

#[test]
fn a_program_that_is_no_child_of_ours_is_told_apart() {
    let compile = |program: &str| {
        let compiler = Compiler::Child { program: program.into(), args: vec![] };
        let host = host_with(compiler, None, HostLimits { instances: 1, ..HostLimits::default() });
        let Err(error) = host.compile(&host.take(&Guest::default().module(), None).unwrap()) else {
            panic!()
        };
        error
    };
    assert!(matches!(compile("true"), CompileError::Foreign { .. }));
    assert!(matches!(compile("cat"), CompileError::Foreign { .. }));
    assert!(matches!(compile("false"), CompileError::Died { .. }));
    assert!(matches!(compile("./no-such-program"), CompileError::Spawn { .. }));
}

#[test]
fn compiled_code_comes_from_the_cache_and_is_made_again_when_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("code");
    let limits = HostLimits { instances: 1, ..HostLimits::default() };
    let module = Guest::default().module();
    let compile = |compiler| {
        let host = host_with(compiler, Some(&folder), limits.clone());
        host.compile(&host.take(&module, None).unwrap()).unwrap().from_cache()
    };
    assert!(!compile(child()));
    // In a process of another program, as after a restart: nothing is compiled, so the compiler is not even looked for.
    let none = Compiler::Child { program: "./no-such-program".into(), args: vec![] };
    assert!(compile(none));
    let entry = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mut damaged = fs::read(&entry).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&entry, damaged).unwrap();
    assert!(!compile(child()));
    assert!(compile(Compiler::InProcess));
    let host = host_with(Compiler::InProcess, Some(&folder), limits.clone());
    host.forget_code_except(&[]).unwrap();
    assert!(!compile(Compiler::InProcess));
}
