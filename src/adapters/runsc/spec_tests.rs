//! The bundles as snapshots, and what their differences may be.

use super::*;
use crate::domain::egress::Policy;
use crate::domain::environment::Grant;

fn bundle(runtime: Runtime) -> Bundle {
    Bundle {
        runtime,
        gvisor: true,
        permissions: Permissions::default(),
        memory_mb: 128,
        tmp_mb: 64,
        rootfs: "/runtimes/rootfs".into(),
        program: format!("/usr/bin/{runtime}"),
        runner: "/run/cloister/runners/0/runner".into(),
        duty: Duty::Call { workspace: "/volumes/tee-env-0/workspace".into(), emitted: None, remote: None },
        warm: false,
        egress: None,
        jsr: None,
        placeholders: BTreeMap::new(),
        host_ids: Some(FIRST_HOST_ID),
    }
}

fn shown(bundle: &Bundle) -> serde_json::Value {
    serde_json::from_str(&config_json(bundle).unwrap()).unwrap()
}

#[test]
fn a_deno_sandbox() {
    insta::assert_json_snapshot!(shown(&bundle(Runtime::Deno)));
}

#[test]
fn a_bun_sandbox() {
    insta::assert_json_snapshot!(shown(&bundle(Runtime::Bun)));
}

#[test]
fn a_sandbox_made_before_its_environment_is_known_has_a_root_of_its_own_and_denos_cache() {
    let slot = std::path::Path::new("/run/cloister/slots/1");
    let duty = Duty::Stand { emitted: slot.join("emitted"), remote: slot.join("remote") };
    let stands = |runtime| Bundle { duty: duty.clone(), warm: true, ..bundle(runtime) };
    let destinations = |runtime| -> Vec<String> {
        let shown = shown(&stands(runtime));
        let mounts = shown["mounts"].as_array().unwrap();
        mounts.iter().map(|mount| mount["destination"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!destinations(Runtime::Bun).contains(&WORKSPACE.to_owned()), "it is a directory of the root");
    insta::assert_json_snapshot!(destinations(Runtime::Deno));
    let args = shown(&stands(Runtime::Deno))["process"]["args"].clone();
    assert_eq!(args.as_array().unwrap().last().unwrap(), "warm");
}

#[test]
fn a_program_is_where_its_image_has_it() {
    for runtime in Runtime::ALL {
        let usual = shown(&bundle(runtime));
        let mut other = shown(&Bundle { program: format!("/usr/local/bin/{runtime}"), ..bundle(runtime) });
        assert_eq!(other["process"]["args"][0], format!("/usr/local/bin/{runtime}"));
        assert_eq!(other["process"]["env"][0], "PATH=/usr/local/bin:/usr/bin");
        for (word, at) in [("args", 0), ("env", 0)] {
            other["process"][word][at] = usual["process"][word][at].clone();
        }
        assert_eq!(other, usual);
    }
}

#[test]
fn permissions_change_denos_arguments_and_nothing_else() {
    let plain = shown(&bundle(Runtime::Deno));
    let mut granted = bundle(Runtime::Deno);
    granted.permissions.allow_run = Some(Grant::Switch(true));
    granted.permissions.allow_write = Some(Grant::Switch(true));
    let mut with = shown(&granted);
    insta::assert_json_snapshot!(with["process"]["args"]);
    with["process"]["args"] = plain["process"]["args"].clone();
    assert_eq!(with, plain);
}

#[test]
fn a_way_out_is_one_socket_one_argument_and_the_variables_of_a_proxy() {
    let grant = Grant::Only(vec!["api.example:443".into(), "*.cdn.example".into()]);
    let policy = Policy::of(Some(&grant)).unwrap();
    let egress = Egress { socket: "/run/cloister/egress/1".into(), authority: None, policy };
    for runtime in Runtime::ALL {
        let with = Bundle { egress: Some(egress.clone()), ..bundle(runtime) };
        insta::assert_json_snapshot!(format!("a_way_out_on_{runtime}"), added(&with));
    }
}

#[test]
fn with_secrets_come_their_placeholders_and_a_certificate_to_trust() {
    let policy = Policy::of(Some(&Grant::Switch(true))).unwrap();
    let authority = Some("/run/cloister/egress/1.pem".into());
    let egress = Egress { socket: "/run/cloister/egress/1".into(), authority, policy };
    let placeholders = BTreeMap::from([("A_KEY".to_owned(), "cloister-secret-0".to_owned())]);
    for runtime in Runtime::ALL {
        let with = Bundle { egress: Some(egress.clone()), placeholders: placeholders.clone(), ..bundle(runtime) };
        insta::assert_json_snapshot!(format!("secrets_on_{runtime}"), added(&with));
    }
}

/// What a bundle has beyond the plain one of its runtime: mounts, arguments and variables, and nothing else.
fn added(bundle_with: &Bundle) -> serde_json::Value {
    let plain = shown(&bundle(bundle_with.runtime));
    let mut with = shown(bundle_with);
    let new = |part: &serde_json::Value, before: &serde_json::Value| -> Vec<serde_json::Value> {
        let before = before.as_array().unwrap();
        part.as_array().unwrap().iter().filter(|entry| !before.contains(entry)).cloned().collect()
    };
    let mounts = new(&with["mounts"], &plain["mounts"]);
    let args = new(&with["process"]["args"], &plain["process"]["args"]);
    let env = new(&with["process"]["env"], &plain["process"]["env"]);
    with["mounts"] = plain["mounts"].clone();
    with["process"] = plain["process"].clone();
    assert_eq!(with, plain);
    serde_json::json!({ "mounts": mounts, "args": args, "env": env })
}

#[test]
fn what_was_emitted_and_resolved_at_set_up_lies_read_only_in_denos_cache() {
    let (emitted, remote) = (Some("/v/emitted".into()), Some("/v/remote".into()));
    let duty = Duty::Call { workspace: "/v/workspace".into(), emitted, remote };
    assert_eq!(duty.bound_at(), ["/tmp/.deno/gen", "/tmp/.deno/remote"]);
    let mounts = shown(&Bundle { duty, ..bundle(Runtime::Deno) })["mounts"].clone();
    let of_deno = mounts.as_array().unwrap().iter().filter(|one| one["destination"].to_string().contains(".deno"));
    insta::assert_json_snapshot!(of_deno.collect::<Vec<_>>());
}

#[test]
fn an_installer_is_the_one_of_its_runtime_and_deno_alone_knows_jsr() {
    let installer = |runtime| {
        let jsr = Some("https://jsr.example/".to_owned());
        let process = shown(&Bundle { duty: Duty::Install, jsr, ..bundle(runtime) })["process"].take();
        (process["args"].as_array().unwrap().last().unwrap().clone(), process["env"].to_string().contains("JSR_URL"))
    };
    assert_eq!(installer(Runtime::Deno), ("/runtime/resolver.js".into(), true));
    assert_eq!(installer(Runtime::Bun), ("/runtime/installer.js".into(), false));
}

#[test]
fn buns_arguments_do_not_know_permissions() {
    let mut granted = bundle(Runtime::Bun);
    granted.permissions.allow_run = Some(Grant::Switch(true));
    assert_eq!(shown(&granted), shown(&bundle(Runtime::Bun)));
}

#[test]
fn a_transpile_sandbox_without_a_user_namespace_has_neither() {
    let lone =
        Bundle { duty: Duty::Transpile { packages: None, remote: None }, host_ids: None, ..bundle(Runtime::Deno) };
    let text = config_json(&lone).unwrap();
    assert!(!text.contains("tee-env") && !text.contains("uidMappings") && !text.contains("\"user\"}"), "{text}");
}

#[test]
fn a_plain_container_differs_by_its_stricter_filter_and_by_no_mount_over_sysfs() {
    let plain = Bundle { gvisor: false, ..bundle(Runtime::Deno) };
    let (mut plain, mut gvisor) = (shown(&plain), shown(&bundle(Runtime::Deno)));
    let rules = plain["linux"]["seccomp"]["syscalls"].take();
    insta::assert_json_snapshot!(rules.as_array().unwrap()[1..]);
    plain["linux"]["seccomp"]["syscalls"] = gvisor["linux"]["seccomp"]["syscalls"].clone();
    gvisor["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
    assert_eq!(plain, gvisor);
}

#[test]
fn every_slot_gets_ids_of_the_free_range() {
    for slot in [0, 1, 4092, 4093, u128::MAX] {
        let first = host_ids_of(slot);
        assert!(first >= HOST_IDS.0 && first.checked_add(RANGE - 1).is_some_and(|last| last <= HOST_IDS.1), "{slot}");
    }
}
