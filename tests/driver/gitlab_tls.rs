//! GitLab over TLS, on loopback with a certificate authority of the test's own: who is trusted, and what is said of
//! who is not.

use std::fs;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::gitlab::{TOKEN, answer, id_of};
use crate::support::http::Server;
use crate::support::output::StageOutput;
use crate::support::tls::Authority;
use crate::support::{House, Job};

const REQUIRED: &str = "job_tags = \"required\"";

/// `config` of a job in `house`, whose GitLab speaks TLS as `server` says, and how many requests it could read.
fn config(house: &House, server: Arc<ServerConfig>, gitlab: &str) -> (StageOutput, usize) {
    let mut attempt = house.attempt("agent", &Job::default());
    let id = id_of(&attempt);
    let server = Server::over_tls(server, move |_| answer(id, &["agent"]));
    house.edit_settings(|text| {
        format!("{text}\n[gitlab]\nurl = \"https://{}\"\n{gitlab}\n", server.address)
    });
    let output = attempt.config().hides(TOKEN);
    let requests = server.requests();
    for request in &requests {
        assert_eq!(
            (request.path.as_str(), request.headers["job-token"].as_str()),
            ("/api/v4/job", TOKEN)
        );
    }
    (output, requests.len())
}

/// A house with the certificates of `authority` in `ca.pem`, beside the settings file.
fn house(authority: &Authority) -> House {
    let house = House::new();
    fs::write(house.path().join("ca.pem"), authority.pem()).unwrap();
    house
}

#[test]
fn an_authority_of_the_operators_is_trusted_by_ca_file() {
    let authority = Authority::new("the operator's");
    let house = house(&authority);
    let gitlab = format!("{REQUIRED}\nca_file = \"ca.pem\"");
    let (output, requests) = config(&house, authority.server("127.0.0.1"), &gitlab);
    let _ = output.succeeds().says("Placed on cluster test");
    assert_eq!(requests, 1);
    let file = fs::read_dir(house.state().join("attempts")).unwrap().next().unwrap().unwrap();
    let attempt: serde_json::Value =
        serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(attempt["question"]["tags_assurance"], "server");
}

#[test]
fn without_ca_file_the_systems_authorities_are_trusted() {
    let authority = Authority::new("the system's");
    let mut house = house(&authority);
    let file = house.path().join("ca.pem");
    house.environment.push(("SSL_CERT_FILE", file.to_str().unwrap().to_owned()));
    let (output, requests) = config(&house, authority.server("127.0.0.1"), REQUIRED);
    let _ = output.succeeds();
    assert_eq!(requests, 1);
}

#[test]
fn another_authority_is_none_and_the_remedy_is_told() {
    let (authority, another) = (Authority::new("the operator's"), Authority::new("another's"));
    let house = house(&authority);
    let gitlab = format!("{REQUIRED}\nca_file = \"ca.pem\"");
    let (output, requests) = config(&house, another.server("127.0.0.1"), &gitlab);
    let _ = output
        .fails_the_system()
        .says("cannot ask https://127.0.0.1")
        .says("invalid peer certificate: UnknownIssuer")
        .says("`ca_file` of [gitlab]");
    assert_eq!(requests, 0, "no byte of the request was sent");
}

#[test]
fn with_preferred_the_profiles_tags_stand_in_and_the_job_log_says_why() {
    let (authority, another) = (Authority::new("the operator's"), Authority::new("another's"));
    let house = house(&authority);
    let gitlab = "job_tags = \"preferred\"\nca_file = \"ca.pem\"";
    let (output, requests) = config(&house, another.server("127.0.0.1"), gitlab);
    let _ = output
        .succeeds()
        .says("The job's own tags are not known, so the profile's stand in [agent]: ")
        .says("UnknownIssuer");
    assert_eq!(requests, 0);
}

#[test]
fn a_certificate_of_another_name_or_of_another_time_is_refused() {
    let authority = Authority::new("the operator's");
    for (server, said) in [
        (authority.server("gitlab.example.com"), "not valid for name"),
        (authority.expired_server("127.0.0.1"), "expired"),
    ] {
        let house = house(&authority);
        let gitlab = format!("{REQUIRED}\nca_file = \"ca.pem\"");
        let (output, requests) = config(&house, server, &gitlab);
        let _ = output.fails_the_system().says("invalid peer certificate").says(said);
        assert_eq!(requests, 0);
    }
}
