//! What a handler may do, and what the host sees of it.

use super::*;

#[tokio::test]
async fn a_result_comes_back_with_its_logs_and_outputs() {
    let world = World::gvisor();
    let source = r#"
        export function handler(event, context) {
            console.warn("careful");
            const say = globalThis.Deno ? (t) => Deno.stdout.writeSync(new TextEncoder().encode(t)) : (t) => process.stdout.write(t);
            say("printed");
            return { twice: event.data.n * 2, env: event.env.GREETING, request: context.requestId };
        }"#;
    for runtime in Runtime::ALL {
        let evidence = world.call(runtime, source, USUAL).await;
        let json = r#"{"twice":40,"env":"hello","request":"r-1"}"#.to_owned();
        assert_eq!(evidence.settlement, Some(Settlement::Result(json)), "{runtime}");
        assert_eq!(judge(&evidence), Outcome::Ok);
        assert_eq!(evidence.stdout.text, "printed");
        assert_eq!(evidence.logs.len(), 1);
        assert!(evidence.cpu > Duration::ZERO && evidence.memory_limit_bytes == 128 << 20, "{evidence:?}");
    }
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_time_limit_in_its_phase() {
    let world = World::gvisor();
    for (source, phase) in [
        ("for (;;) {}", Phase::Import),
        ("await new Promise((r) => setTimeout(r, 60_000)); export const handler = () => 1", Phase::Import),
        ("export const handler = () => { console.log('so far'); for (;;) {} }", Phase::Handler),
    ] {
        let evidence = world.call(Runtime::Deno, source, limits(400, 128)).await;
        assert_eq!((judge(&evidence), evidence.phase), (Outcome::Timeout, phase), "{source}");
        assert!(evidence.handler_time < Duration::from_millis(650), "{:?}", evidence.handler_time);
        assert_eq!(evidence.logs.len(), usize::from(phase == Phase::Handler));
    }
}

#[tokio::test]
async fn a_handler_that_leaves_without_a_word_is_no_result() {
    let world = World::gvisor();
    let leave = "export const handler = () => (globalThis.Deno ?? process).exit(0)";
    for runtime in Runtime::ALL {
        let evidence = world.call(runtime, leave, USUAL).await;
        assert_eq!((judge(&evidence), evidence.end), (Outcome::NoResult, End::Closed), "{runtime}: {evidence:?}");
        assert_eq!(evidence.process, ProcessEnd::Exited(0));
    }
}

#[tokio::test]
async fn a_forged_frame_is_never_a_result() {
    let world = World::gvisor();
    let source = r#"
        import { writeSync } from "node:fs";
        export function handler() {
            const body = Buffer.from(JSON.stringify({ type: "result", nonce: "0".repeat(32), json: "\"forged\"" }));
            const frame = Buffer.alloc(4 + body.length);
            frame.writeUInt32BE(body.length);
            body.copy(frame, 4);
            for (let fd = 1; fd < 20; fd++) { try { writeSync(fd, frame); } catch {} }
            process.exit(0);
        }"#;
    let evidence = world.call(Runtime::Bun, source, USUAL).await;
    assert_eq!(evidence.settlement, Some(Settlement::Forged), "{evidence:?}");
    assert_eq!(judge(&evidence), Outcome::NoResult);
}

#[tokio::test]
async fn memory_bombs_are_out_of_memory() {
    let world = World::gvisor();
    let arrays = "export const handler = () => { const a = []; for (;;) a.push(new Array(10_000).fill(1.5)); }";
    let buffers = "export const handler = () => { const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 7)); }";
    let buffers = format!("import {{ Buffer }} from 'node:buffer'; {buffers}");
    for runtime in Runtime::ALL {
        for source in [arrays, &buffers] {
            let evidence = world.call(runtime, source, limits(20_000, 128)).await;
            assert_eq!(judge(&evidence), Outcome::OutOfMemory, "{runtime} {source}: {evidence:?}");
        }
    }
}

#[tokio::test]
async fn a_flood_on_stdout_ends_the_call_and_its_beginning_is_kept() {
    let world = World::gvisor();
    let source = r#"
        export function handler() {
            const chunk = new TextEncoder().encode("x".repeat(1 << 16));
            for (;;) Deno.stdout.writeSync(chunk);
        }"#;
    let evidence = world.call(Runtime::Deno, source, USUAL).await;
    assert_eq!(judge(&evidence), Outcome::OutputLimit);
    assert_eq!(evidence.stdout.text.len(), 64 << 10);
    assert!(evidence.stdout.dropped_bytes > 8 << 20);
}

#[tokio::test]
async fn large_requests_and_results_pass_and_larger_ones_are_refused() {
    let world = World::gvisor();
    let source = r#"
        export function handler({ data }) {
            if (data.deep) { let value = 1; for (let i = 0; i < data.deep; i++) value = [value]; return value; }
            return data.text + "\\\"".repeat(data.more);
        }"#;
    let text = "é".repeat(500_000);
    for (data, outcome) in [
        (format!(r#"{{"text":"{text}","more":500000}}"#), Outcome::Ok),
        (r#"{"text":"","more":3000000}"#.to_owned(), Outcome::OutputLimit),
        (r#"{"deep":512}"#.to_owned(), Outcome::Ok),
        (r#"{"deep":513}"#.to_owned(), Outcome::InvalidResult),
    ] {
        for runtime in Runtime::ALL {
            let (slot, environment) = world.ready(runtime, source, 128).await;
            let call = Call { data: data.clone(), ..call(environment, USUAL) };
            let evidence = world.engine().run(slot, &call, "main.js", false, None).await.unwrap();
            world.engine().destroy(slot).await.unwrap();
            let start: String = data.chars().take(20).collect();
            assert_eq!(judge(&evidence), outcome, "{runtime} {start}");
        }
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    let world = World::gvisor();
    let source = r#"
        export async function handler() {
            for (;;) Bun.spawn(["/usr/bin/bun", "-e", "setInterval(() => {}, 1000)"]);
        }"#;
    let evidence = world.call(Runtime::Bun, source, limits(15_000, 512)).await;
    let outcome = judge(&evidence);
    let bounded = [Outcome::PidsLimit, Outcome::OutOfMemory, Outcome::HandlerError];
    assert!(bounded.contains(&outcome), "{outcome:?} {evidence:?}");
}
