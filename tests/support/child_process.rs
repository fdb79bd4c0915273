//! A test that runs itself again as a child process, because a process must not change its
//! environment while other tests read it.
#![allow(
    unused_imports,
    unused_macros,
    reason = "not every test binary uses `test_name`"
)]

use std::process::{Command, Output};

/// Set for the child.
const IS_CHILD: &str = "TOWER_OAUTH_TEST_CHILD";

/// The name of the test around it, as the option `--exact` takes it.
macro_rules! test_name {
    () => {
        $crate::support::child_process::name_of(&|| ())
    };
}
pub(crate) use test_name;

/// The path of the function in which a closure is, without its crate.
pub fn name_of<F: Fn()>(_: &F) -> &'static str {
    let (_, path) = std::any::type_name::<F>().split_once("::").unwrap();
    path.trim_end_matches("::{{closure}}")
}

/// Whether this process is the child.
pub fn is_child() -> bool {
    std::env::var_os(IS_CHILD).is_some()
}

/// Runs a test again, as a process with these variables alone. Asserts that it passes, and returns
/// what it prints.
#[track_caller]
pub fn run_again(test: &str, variables: &[(&str, &str)]) -> String {
    checked_output(test, command(test, variables).output().unwrap())
}

/// [`run_again`] for a test whose runtime has to serve the child meanwhile.
pub async fn run_again_async(test: &str, variables: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::from(command(test, variables));
    checked_output(test, command.output().await.unwrap())
}

fn command(test: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env_clear();
    // The child may create temporary files, too.
    command.envs(std::env::var_os("TMPDIR").map(|folder| ("TMPDIR", folder)));
    command.env(IS_CHILD, "1").envs(variables.iter().copied());
    command
}

#[track_caller]
fn checked_output(test: &str, output: Output) -> String {
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}:\n{printed}{errors}");
    assert!(printed.contains("1 passed"), "no test {test}:\n{printed}");
    printed
}
