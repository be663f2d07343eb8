//! The house: who may know whom, and what is said twice agrees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokenward_core::Reason;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(root()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Source files of a folder, with their text.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let name = entry.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            all.push((name, fs::read_to_string(&entry).unwrap()));
        }
    }
    all
}

#[test]
fn a_stage_does_not_know_the_order_of_stages() {
    for (file, text) in sources(&root().join("core/src")) {
        let may_know_all = ["/introspector/", "client.rs", "lib.rs"].iter().any(|name| file.contains(name));
        if !may_know_all {
            assert!(!text.contains("crate::introspector"), "{file} knows introspector");
            assert!(!text.contains("crate::client"), "{file} knows client");
        }
        if !file.contains("/load/") && !file.ends_with("lib.rs") {
            assert!(!text.contains("crate::load"), "{file} knows load");
        }
    }
}

#[test]
fn the_core_depends_on_no_other_package_of_ours_and_examples_on_its_surface_alone() {
    let core = fs::read_to_string(root().join("core/Cargo.toml")).unwrap();
    assert!(!core.contains("path ="));
    for (file, text) in sources(&root().join("examples")) {
        assert!(!text.contains("tokenward_tests"), "{file} knows the tests");
    }
}

#[test]
fn the_package_for_node_knows_the_core_alone() {
    let manifest = fs::read_to_string(root().join("bindings/node/Cargo.toml")).unwrap();
    assert!(manifest.contains("tokenward-core") && !manifest.contains("tokenward-ffi"));
    for (file, text) in sources(&root().join("bindings/node/src")) {
        for word in
            ["std::fs", "std::net", "std::env", "std::thread", "SystemTime", "Instant", "println!", "static mut"]
        {
            assert!(!text.contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn unsafe_code_lives_in_the_c_abi_alone() {
    for folder in ["core", "examples"] {
        for (file, text) in sources(&root().join(folder)) {
            let used = text.lines().any(|line| line.contains("unsafe ") && !line.trim_start().starts_with("//"));
            assert!(!used, "{file} is unsafe");
        }
    }
    for (file, text) in sources(&root().join("ffi/src")) {
        // What tests it may have threads.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for word in
            ["std::fs", "std::net", "std::env", "std::thread", "SystemTime", "Instant", "println!", "static mut"]
        {
            assert!(!text.contains(word), "{file} uses {word}");
        }
    }
}

#[test]
fn without_features_no_http_tls_file_or_clock_code_is_built() {
    let tree = |features: &str| -> BTreeSet<String> {
        let arguments = [
            "tree",
            "-p",
            "tokenward-core",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--no-default-features",
            "--features",
            features,
        ];
        cargo(&arguments).lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    let bare = tree("");
    for package in
        ["ureq", "rustls", "http", "hyper", "tokio", "serde-saphyr", "webpki", "rustls-platform-verifier", "libloading"]
    {
        assert!(!bare.contains(package), "{package} is built");
    }
    assert!(tree("client").contains("ureq") && tree("load").contains("serde-saphyr"), "the names above are right");
    assert_eq!(tree("clock"), bare);

    for (file, text) in sources(&root().join("core/src")) {
        let allowed = ["clock.rs", "client.rs", "load/mod.rs"].iter().any(|name| file.ends_with(name));
        for word in ["std::fs", "std::net", "std::env", "std::thread", "SystemTime", "Instant", "println!", "eprintln!"]
        {
            let used = text.lines().any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(allowed || !used, "{file} uses {word}");
        }
    }
}

#[test]
fn no_dependency_needs_a_newer_rust_than_ours() {
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    let number = |version: &str| -> Vec<u32> {
        version.split('.').chain(["0"]).take(3).map(|part| part.parse().unwrap()).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    let ours =
        packages.iter().find(|package| package["name"] == "tokenward-core").unwrap()["rust_version"].as_str().unwrap();
    for package in packages {
        if let Some(needed) = package["rust_version"].as_str() {
            assert!(number(needed) <= number(ours), "{} needs Rust {needed}, ours is {ours}", package["name"]);
        }
    }
}

/// Rows of the first table under a heading of the README: cells without white space around them.
fn table(heading: &str) -> Vec<Vec<String>> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) =
        readme.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| {
            row.replace("\\|", "\0")
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.replace('\0', "|").trim().to_owned())
                .collect()
        })
        .collect()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[test]
fn the_readmes_settings_are_the_codes_with_their_defaults() {
    let readme: BTreeSet<(String, String)> =
        table("Settings").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected: BTreeSet<(String, String)> = tokenward_core::settings()
        .into_iter()
        .map(|(path, default)| {
            let word = default == "required" || default == "absent";
            (code(&path), if word { default } else { code(&default) })
        })
        .collect();
    let missing: Vec<_> = expected.difference(&readme).collect();
    let superfluous: Vec<_> = readme.difference(&expected).collect();
    assert!(missing.is_empty() && superfluous.is_empty(), "missing: {missing:#?}\nsuperfluous: {superfluous:#?}");
}

#[test]
fn the_readmes_headers_are_the_codes() {
    let mut readme: Vec<String> = table("Headers for the upstream").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(readme.pop().as_deref(), Some("`X-Credential-{claim}`"));
    let expected: Vec<String> = tokenward_core::set_headers().map(code).collect();
    assert_eq!(readme, expected);
}

#[test]
fn the_readmes_refusals_are_the_codes() {
    let readme: Vec<Vec<String>> = table("Refusals").into_iter().map(|row| row[..5].to_vec()).collect();
    let expected: Vec<Vec<String>> = Reason::ALL
        .iter()
        .map(|reason| {
            vec![
                code(reason.name()),
                reason.number().to_string(),
                reason.status().to_string(),
                code(reason.error()),
                if *reason == Reason::RequestMalformed {
                    "what was malformed".to_owned()
                } else {
                    reason.description().to_owned()
                },
            ]
        })
        .collect();
    assert_eq!(readme, expected);
}

#[test]
fn every_shared_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[workspace.dependencies]").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    for line in dependencies.lines().filter(|line| line.contains(" = ")) {
        assert!(line.contains(" # ") || line.starts_with("tokenward-"), "no reason: {line}");
    }
}

#[test]
fn every_threat_is_stopped_somewhere_and_shown_by_a_test() {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let (_, table) = security.split_once("| threat |").unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    assert!(rows.len() >= 10, "{} threats", rows.len());
    for row in rows {
        let [threat, places, tests] = row[..] else { panic!("no three columns: {row:?}") };
        for place in places.split('`').filter(|place| place.contains('/')) {
            assert!(root().join(place).exists(), "{threat}: {place} is not there");
        }
        for test in tests.split("<br>") {
            let (file, name) = test.split_once("`: ").unwrap_or_else(|| panic!("{threat}: no test in {test:?}"));
            let file = file.trim_matches('`');
            let text = fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("{threat}: no {file}"));
            let name = if file.ends_with(".json") { format!("\"name\": \"{name}\"") } else { name.to_owned() };
            assert!(text.contains(&name), "{threat}: {file} has no {name}");
        }
    }
}
