//! Runs the driver's part of a test in a process of its own.
//!
//! The AWS SDK finds endpoint and credentials in its process's environment, which a process with threads, such as a
//! test binary, cannot change safely. So a test that needs an endpoint starts its own binary once more, for itself
//! alone and with the right environment; a variable tells the second run what it is.

use std::process::Command;

use serde_json::Value;

/// Its presence marks the second run; its value is what the service has said of itself, in JSON.
const SERVICE: &str = "POINTSMAN_JUDGES_SERVICE";

/// In the second run: what the service has said of itself.
pub(crate) fn service() -> Option<Value> {
    Some(serde_json::from_str(&std::env::var(SERVICE).ok()?).unwrap())
}

/// Runs `test`, the name of the calling test, a second time, as a client of `service`; panics when that fails.
pub(crate) fn run(test: &str, service: &Value) {
    let endpoint = service["endpoint"].as_str().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        // Nobody's profile, proxy or credentials: the requests go to the endpoint or nowhere.
        .env_clear()
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env(SERVICE, service.to_string())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A run that found no test of this name is a success as well.
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "the second run of `{test}`: {}\n{stdout}\n{stderr}",
        output.status
    );
}

/// Runs what the driver does to its end.
pub(crate) fn block_on<T>(driver: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(driver)
}
