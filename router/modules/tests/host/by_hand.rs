//! An aggregator and a compensator written by hand, which do what a byte of their input says. They know the contract's binary
//! layout, and nothing of the host's inside.
//!
//! Their memory: from 1024 answers, from 2048 the description, from 16384 texts, from 65536 on what the host allocates.

use crate::kit::{ALLOCATOR, embed};

/// What both have: imports, memory, a description and `configure`.
fn common(advances: u8) -> String {
    format!(
        r#"(import "chaski:module/log@1.0.0" "write" (func $log (param i32 i32 i32)))
        (memory (export "memory") 4)
        {ALLOCATOR}
        (func (export "describe") (result i32) (i32.const 2048))
        (func (export "configure") (param i32 i32) (result i32) (i32.const 2096))
        (data (i32.const 2048) "\00\09\00\00\05\00\00\00\05\09\00\00\05\00\00\00\00\{advances:02x}\00\00\00\00\00\00\00\00\00\00")
        (data (i32.const 2304) "guest1.0.0")
        (data (i32.const 16384) "boom, at lib.rs:1:1")
        (data (i32.const 16448) "chaski-x")
        (data (i32.const 16464) "taxi")
        ;; Hostile deeds, each by its letter.
        (func $deed (param $what i32)
            (if (i32.eq (local.get $what) (i32.const 116 (; t: trap ;))) (then (unreachable)))
            (if (i32.eq (local.get $what) (i32.const 115 (; s: spin ;))) (then (loop $spin (br $spin))))
            (if (i32.eq (local.get $what) (i32.const 109 (; m: memory, and trap without ;))) (then
                (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then (unreachable)))))
            (if (i32.eq (local.get $what) (i32.const 112 (; p: panic ;))) (then
                (call $log (i32.const 5) (i32.const 16384) (i32.const 19)) (unreachable)))
            (if (i32.eq (local.get $what) (i32.const 108 (; l: log ;))) (then
                (call $log (i32.const 2) (i32.const 16384) (i32.const 4)))))
        (func $free (global.set $free (i32.const 65536)))"#
    )
}

/// `begin` answers the request's payload as the state. `fold` of a reply does what its payload's first byte says, and answers
/// the state with that byte at its end, done where it is `d`; with `B` and `b` a state of 1 MiB, and of one byte more. Other
/// events add `.`. `finish` answers the state as the payload, an error where it begins with `e`, a forbidden header where it
/// begins with `h`, and a payload of 2 MiB where it begins with `P`.
pub(crate) fn aggregator() -> Vec<u8> {
    let common = common(0);
    let text = format!(
        r#"(module {common}
        (func (export "begin")
            (param $topic i32) (param i32 i32 i32 i32 i32 i32 i32 i32) (param $payload i32) (param $bytes i32)
            (param i32 i64 i32 i32) (result i32)
            (call $deed (i32.load8_u (local.get $topic)))
            (i32.store (i32.const 1024) (local.get $payload))
            (i32.store (i32.const 1028) (local.get $bytes))
            (i32.const 1024))
        (func (export "fold") (param $state i32) (param $bytes i32) (param $case i32) (param i32 i32 i64 i32 i32)
            (param $payload i32) (param i32) (result i32)
            (local $what i32) (local $at i32)
            (local.set $what (i32.const 46))
            (if (i32.eqz (local.get $case)) (then
                (local.set $what (i32.load8_u (local.get $payload)))
                (call $deed (local.get $what))))
            (local.set $at (global.get $free))
            (if (i32.gt_u (i32.add (local.get $at) (i32.add (local.get $bytes) (i32.const 1)))
                    (i32.shl (memory.size) (i32.const 16)))
                (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $bytes) (i32.const 16)))))))
            (memory.copy (local.get $at) (local.get $state) (local.get $bytes))
            (i32.store8 (i32.add (local.get $at) (local.get $bytes)) (local.get $what))
            (i32.store (i32.const 1024) (local.get $at))
            (i32.store (i32.const 1028) (i32.add (local.get $bytes) (i32.const 1)))
            (i32.store (i32.const 1032) (i32.eq (local.get $what) (i32.const 100)))
            (if (i32.eq (i32.or (local.get $what) (i32.const 32)) (i32.const 98)) (then
                (drop (memory.grow (i32.const 20)))
                (i32.store (i32.const 1024) (i32.const 0))
                (i32.store (i32.const 1028) (i32.add (i32.const 1048576)
                    (i32.eq (local.get $what) (i32.const 98))))))
            (i32.const 1024))
        (func (export "finish") (param $state i32) (param $bytes i32) (param $why i32) (result i32)
            (local $what i32)
            (if (local.get $bytes) (then (local.set $what (i32.load8_u (local.get $state)))))
            (i32.store (i32.const 1024) (i32.eq (local.get $what) (i32.const 101)))
            (i32.store (i32.const 1028) (i32.const 1056))
            (i32.store (i32.const 1032) (i32.eq (local.get $what) (i32.const 104)))
            (i32.store (i32.const 1036) (local.get $state))
            (i32.store (i32.const 1040) (local.get $bytes))
            (i32.store (i32.const 1056) (i32.const 16448))
            (i32.store (i32.const 1060) (i32.const 8))
            (i32.store (i32.const 1064) (i32.const 16448))
            (i32.store (i32.const 1068) (i32.const 8))
            (if (i32.load8_u (i32.const 1024)) (then
                (i32.store (i32.const 1028) (local.get $state))
                (i32.store (i32.const 1032) (local.get $bytes))))
            (if (i32.eq (local.get $what) (i32.const 80)) (then
                (drop (memory.grow (i32.const 40)))
                (i32.store (i32.const 1036) (i32.const 0))
                (i32.store (i32.const 1040) (i32.const 2097152))))
            (i32.const 1024))
        (func (export "cabi_post_begin") (param i32) (call $free))
        (func (export "cabi_post_fold") (param i32) (call $free))
        (func (export "cabi_post_finish") (param i32) (call $free)))"#
    );
    module(&text, "aggregator")
}

/// It does what the first byte of the saga's input says, and answers by it: `advance` with `g` the first step with the input as
/// its payload, `x` a step that there is not, `c` complete, `f` fail with the saga's id, else next; `compensate` with `u` to
/// undo the first step, `x` one that there is not, `r` retry, else park with the saga's id.
pub(crate) fn compensator() -> Vec<u8> {
    let common = common(1);
    let text = format!(
        r#"(module {common}
        ;; What the input says, after a deed that it says.
        (func $what (param $history i32) (result i32)
            (local $what i32)
            (local.set $what (i32.load8_u (i32.load offset=60 (local.get $history))))
            (call $deed (local.get $what))
            (local.get $what))
        ;; At 1028 and 1032 the first step's name, or that of one which there is not.
        (func $name (param $history i32) (param $what i32) (param $at i32)
            (i32.store (local.get $at) (i32.const 16464))
            (i32.store offset=4 (local.get $at) (i32.const 4))
            (if (i32.ne (local.get $what) (i32.const 120)) (then
                (i32.store (local.get $at) (i32.load (i32.load offset=80 (local.get $history))))
                (i32.store offset=4 (local.get $at) (i32.load offset=4 (i32.load offset=80 (local.get $history)))))))
        (func $id (param $history i32)
            (i32.store (i32.const 1028) (i32.load offset=8 (local.get $history)))
            (i32.store (i32.const 1032) (i32.load offset=12 (local.get $history))))
        (func (export "advance") (param $history i32) (result i32)
            (local $what i32)
            (local.set $what (call $what (local.get $history)))
            (i32.store (i32.const 1024) (i32.const 0))
            (if (i32.eq (local.get $what) (i32.const 99)) (then (i32.store (i32.const 1024) (i32.const 2))))
            (if (i32.eq (local.get $what) (i32.const 102)) (then
                (i32.store (i32.const 1024) (i32.const 3)) (call $id (local.get $history))))
            (if (i32.or (i32.eq (local.get $what) (i32.const 103)) (i32.eq (local.get $what) (i32.const 120))) (then
                (i32.store (i32.const 1024) (i32.const 1))
                (call $name (local.get $history) (local.get $what) (i32.const 1028))
                (i32.store (i32.const 1036) (i32.const 1))
                (i32.store (i32.const 1040) (i32.load offset=60 (local.get $history)))
                (i32.store (i32.const 1044) (i32.load offset=64 (local.get $history)))))
            (i32.const 1024))
        (func (export "compensate") (param $history i32) (result i32)
            (local $what i32)
            (local.set $what (call $what (local.get $history)))
            (i32.store (i32.const 1024) (i32.const 2))
            (call $id (local.get $history))
            (if (i32.eq (local.get $what) (i32.const 114)) (then (i32.store (i32.const 1024) (i32.const 1))))
            (if (i32.or (i32.eq (local.get $what) (i32.const 117)) (i32.eq (local.get $what) (i32.const 120))) (then
                (i32.store (i32.const 1024) (i32.const 0))
                (i32.store (i32.const 1028) (i32.const 1056))
                (i32.store (i32.const 1032) (i32.const 1))
                (call $name (local.get $history) (local.get $what) (i32.const 1056))
                (i32.store (i32.const 1064) (i32.const 0))))
            (i32.const 1024))
        (func (export "cabi_post_advance") (param i32) (call $free))
        (func (export "cabi_post_compensate") (param i32) (call $free)))"#
    );
    module(&text, "compensator")
}

fn module(text: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).expect("the text is right");
    embed(&mut module, world);
    module
}
