//! What is shipped to run respaldo with: manifests that Kubernetes takes and that ask for no right, a
//! unit that systemd takes and calls well closed, configs that the program takes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::program::Respaldo;
use crate::support::prometheus::shipped;
use crate::support::testbed;

/// The oldest and the newest that are looked at.
const KUBERNETES: [&str; 2] = ["1.29", "1.34"];

/// What an overlay amounts to, after a strict check.
fn built(overlay: &str) -> Vec<Value> {
    let folder = shipped("kubernetes/overlays").join(overlay);
    let built = Command::new(testbed("kustomize/kustomize")).arg("build").arg(folder).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let [_, last] = KUBERNETES.map(|version| checked(&built.stdout, version).unwrap());
    last
}

/// The documents, or what is wrong with them.
fn checked(manifests: &[u8], version: &str) -> Result<Vec<Value>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/manifests.py");
    let mut child = Command::new(testbed("venv/bin/python"))
        .arg(script)
        .arg(version)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn only<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several of {kind}");
    first
}

#[test]
fn the_manifests_are_taken_and_ask_for_no_right() {
    for overlay in ["example", "replace-cronjob"] {
        let manifests = built(overlay);
        let deployment = &only(&manifests, "Deployment")["spec"];
        assert_eq!(
            (&deployment["replicas"], &deployment["strategy"]["type"]),
            (&json!(1), &json!("Recreate"))
        );
        let pod = &deployment["template"]["spec"];
        // Pod Security Standards, "restricted".
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!() };
        let closed = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        assert_eq!(container["securityContext"], closed);
        // Whatever is late must never be a reason to kill it.
        let path = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap().to_owned();
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"].map(path);
        assert_eq!(probes, ["/livez", "/livez", "/readyz"]);
        // Every folder that it writes to is a volume, and every volume there is.
        let mounts = container["volumeMounts"].as_array().unwrap();
        for folder in ["/var/lib/respaldo", "/backups", "/tmp"] {
            assert!(mounts.iter().any(|mount| mount["mountPath"] == folder), "{folder}");
        }
        for mount in mounts {
            let volumes = pod["volumes"].as_array().unwrap();
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
        }

        let labels = json!({ "app.kubernetes.io/name": "respaldo" });
        assert_eq!(deployment["template"]["metadata"]["labels"], labels);
        assert_eq!(deployment["selector"]["matchLabels"], labels);
        assert_eq!(only(&manifests, "Service")["spec"]["selector"], labels);
        // One that is empty would close the whole namespace, or scrape it.
        let policy = &only(&manifests, "NetworkPolicy")["spec"];
        assert_eq!(policy["podSelector"]["matchLabels"], labels);
        let monitor = &only(&manifests, "PodMonitor")["spec"];
        assert_eq!(monitor["selector"]["matchLabels"], labels);
        let [endpoint] = monitor["podMetricsEndpoints"].as_array().unwrap().as_slice() else {
            panic!()
        };
        assert_eq!(
            (&endpoint["path"], &endpoint["port"]),
            (&json!("/metrics"), &container["ports"][0]["name"])
        );
    }
}

#[test]
fn the_checker_is_strict() {
    let manifest = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{ name: a }}\nspec: {spec}\n")
    };
    let check = |spec: &str| checked(manifest(spec).as_bytes(), KUBERNETES[1]);
    assert!(check("{ ports: [{ port: 1 }] }").is_ok());
    assert!(check("{ ports: [{ port: one }] }").is_err());
    assert!(check("{ prots: [] }").unwrap_err().contains("prots"));
}

#[test]
fn a_cronjob_that_is_replaced_stays_and_sleeps() {
    let manifests = built("replace-cronjob");
    assert_eq!(only(&manifests, "CronJob")["spec"]["suspend"], true);
    let claims = manifests.iter().filter(|manifest| manifest["kind"] == "PersistentVolumeClaim");
    let names: Vec<_> = claims.map(|claim| claim["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["respaldo-data"], "its own volume holds the backups");
    // The variables that it is given are a config.
    let pod = &only(&manifests, "Deployment")["spec"]["template"]["spec"];
    let mut respaldo = Respaldo::without_config();
    for variable in pod["containers"][0]["env"].as_array().unwrap() {
        let [name, value] = ["name", "value"].map(|key| variable[key].as_str().unwrap());
        respaldo = respaldo.env(name, value);
    }
    for (name, value) in
        [("POSTGRES_USER", "u"), ("POSTGRES_PASSWORD", "p"), ("POSTGRES_DB", "shop")]
    {
        respaldo = respaldo.env(name, value);
    }
    let shown = respaldo.run(&["config", "show"]).expect(0).stdout;
    for wanted in ["u@postgres:5432/shop", "0 2 * * *", "days = 14", "file:///backups"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
}

#[test]
fn the_configs_are_taken() {
    let manifests = built("example");
    let secret = only(&manifests, "Secret")["stringData"].as_object().unwrap();
    let kubernetes = only(&manifests, "ConfigMap")["data"]["config.toml"].as_str().unwrap();
    let compose = std::fs::read_to_string(shipped("compose/respaldo.toml")).unwrap();
    for (config, secrets) in [
        (kubernetes, secret.keys().map(String::as_str).collect::<Vec<_>>()),
        (&compose, vec!["db_password", "s3_password"]),
    ] {
        let respaldo = Respaldo::new(&config.replace("/run/secrets", "@DIR@/secrets"));
        for name in secrets {
            assert!(config.contains(&format!("/run/secrets/{name}")), "nothing uses {name}");
            respaldo.write(&format!("secrets/{name}"), "x");
        }
        let shown = respaldo.run(&["config", "show"]).expect(0).stdout;
        assert!(shown.contains("[jobs.shop]"), "{shown}");
    }
}

#[test]
fn the_unit_is_taken_and_well_closed() {
    let folder = crate::support::temp_folder("unit");
    let unit = std::fs::read_to_string(shipped("systemd/respaldo.service")).unwrap();
    // The program need not be installed where this is checked.
    let here = unit.replace("/usr/local/bin/respaldo", "/bin/true");
    assert_ne!(unit, here);
    let path = folder.path().join("respaldo.service");
    std::fs::write(&path, here).unwrap();
    let analyze = |words: &[&str]| {
        let output = Command::new("systemd-analyze").args(words).arg(&path).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (taken, said) = analyze(&["verify", "--man=no"]);
    assert!(taken && !said.contains("respaldo.service:"), "{said}");
    // 0 is closed, 100 open: a unit that says nothing has 96.
    let (closed, said) = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
    assert!(closed, "{said}");
}
