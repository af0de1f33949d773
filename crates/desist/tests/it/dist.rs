//! The release as a newcomer gets it: checked, unpacked and used on a machine without a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::DESIST;

fn dist(out: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/dist");
    let output = Command::new(script)
        .args(["--binary", DESIST, "--out"])
        .arg(out)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("scripts/dist runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let name = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(name.trim())
}

/// The README's main job: a server, a decision, an opt-out, the other decision.
const JOB: &str = r#"
set -euo pipefail
for tool in cargo rustc; do if command -v "$tool"; then exit 1; fi; done
cd "$1"
sha256sum --check --strict ./*.sha256
tar -xzf ./*.tar.gz
cd desist-*/
for file in README.md LICENSE docs/deploy.md packaging/desist.service; do test -s "$file"; done

coproc SERVER { exec ./desist serve --data data --public 127.0.0.1:0 --private 127.0.0.1:0; }
pid=$SERVER_PID
trap 'kill "$pid"' EXIT
while read -r word url _; do [ "$word" != private ] || break; done <&"${SERVER[0]}"
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
call() {
    curl -q --silent --show-error --fail --noproxy '*' -H "X-Api-Key: $(value api_key <data/first-admin.json)" \
        -H "Authorization: Bearer $(value token <data/first-admin.json)" -H 'Content-Type: application/json' --data "$2" "$url$1"
}
who='"identifiers":[{"kind":"email","value":"rosa@example.org"}]'
decide() { call /v1/decisions "{\"purpose\":\"sale\",$who}" | value decision; }
test "$(decide)" = allow
./desist decide email:rosa@example.org --data data
call /v1/requests "{\"kind\":\"opt_out\",\"channel\":\"form\",$who}" | value receipt_code | grep -E '^[0-9A-Z]{26}$'
test "$(decide)" = deny
test "$(./desist decide email:ROSA@example.org --data data || echo "exit $?")" = "deny (opted_out)
exit 1"
./desist check --data data
kill "$pid"
wait "$pid"
trap - EXIT
echo done
"#;

#[test]
fn the_archive_is_whole_and_works_without_a_toolchain() {
    let directory = tempfile::tempdir().unwrap();
    let archive = dist(directory.path());
    let name = archive.file_name().unwrap().to_str().unwrap();
    let start = format!("desist-{}-{}-linux.tar.gz", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    assert_eq!(name, start);
    let output =
        Command::new("env").args(["-i", "PATH=/usr/bin:/bin", "bash", "-c", JOB, "job"]).arg(directory.path()).output().expect("bash runs");
    let (said, problems) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}\n{problems}");
}

#[test]
fn the_same_binary_makes_the_same_archive() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let read = |out: &Path| std::fs::read(dist(out)).unwrap();
    assert!(read(one.path()) == read(two.path()), "scripts/dist is not reproducible");
}
