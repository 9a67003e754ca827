//! The two calls of the EC2 API, made by hand: `aws-sdk-ec2` is larger than the rest of the driver.
//!
//! EC2 speaks the query protocol: a form in, XML out. Signing, HTTP and retries are the SDK's own parts.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::HttpStatusCodeClassifier;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::with_advice;
use crate::backend::BackendError;

/// The version of the EC2 API whose answers are read here.
const VERSION: &str = "2016-11-15";

/// A filter takes at most this many values (EC2 API reference, "Filtering").
pub(super) const FILTER_LIMIT: usize = 200;

/// Of one call with its retries.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An id and the addresses found for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Addresses {
    /// Of a network interface or an instance.
    pub(super) id: String,
    pub(super) private: Option<String>,
    pub(super) public: Option<String>,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    DescribeNetworkInterfaces,
    DescribeInstances,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeInstances => "DescribeInstances",
        }
    }

    /// By filter, not by id: one id that is gone would make an error of the whole answer.
    fn filter(self) -> &'static str {
        match self {
            Self::DescribeNetworkInterfaces => "network-interface-id",
            Self::DescribeInstances => "instance-id",
        }
    }
}

/// The addresses of `ids`, at most [`FILTER_LIMIT`]; what EC2 does not know is missing in the answer.
///
/// # Errors
///
/// Fails with EC2's code and message, or without an answer.
pub(super) async fn describe(
    sdk: &SdkConfig,
    credentials: &Credentials,
    region: &str,
    action: Action,
    ids: &[String],
) -> Result<Vec<Addresses>, BackendError> {
    let call = action.name();
    let url = endpoint(sdk, region);
    let request = signed(&url, region, credentials, &form(action, ids), SystemTime::now())
        .map_err(|message| BackendError::new(call, "request", message))?;
    let retries = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    let mut operation = Operation::builder()
        .service_name("ec2")
        .operation_name(call)
        .endpoint_url(&url)
        .no_auth()
        .standard_retry(&retries)
        .retry_classifier(HttpStatusCodeClassifier::default())
        .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build());
    if let Some(client) = sdk.http_client() {
        operation = operation.http_client(client);
    }
    if let Some(sleep) = sdk.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    let operation = operation
        .serializer(move |()| request.try_clone().ok_or_else(|| "the body is a stream".into()))
        .deserializer::<_, Infallible>(|response: &HttpResponse| {
            let body = response.body().bytes().unwrap_or_default();
            Ok((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
        })
        .build();
    let (status, body) = match operation.invoke(()).await {
        Ok(answer) => answer,
        Err(error) => {
            let error: SdkError<Infallible, HttpResponse> = error;
            let message = DisplayErrorContext(error).to_string();
            return Err(with_advice(BackendError::new(call, "no answer", message)));
        }
    };
    if status == 200 {
        return parse(action, &body)
            .ok_or_else(|| BackendError::new(call, "answer", "the answer is no XML of EC2's"));
    }
    let (code, message) =
        error_of(&body).unwrap_or_else(|| (format!("HTTP {status}"), "no message".to_owned()));
    Err(with_advice(BackendError::new(call, code, message)))
}

/// EC2's endpoint, or the one that AWS's own variables and files name (`AWS_ENDPOINT_URL_EC2`).
fn endpoint(sdk: &SdkConfig, region: &str) -> String {
    let key = ServiceConfigKey::builder()
        .service_id("EC2")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let configured = key
        .ok()
        .and_then(|key| sdk.service_config()?.load_config(key))
        .or_else(|| sdk.endpoint_url().map(str::to_owned));
    configured.unwrap_or_else(|| {
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://ec2.{region}.{suffix}")
    })
}

fn form(action: Action, ids: &[String]) -> String {
    let mut form =
        format!("Action={}&Version={VERSION}&Filter.1.Name={}", action.name(), action.filter());
    for (index, id) in ids.iter().enumerate() {
        form.push_str(&format!("&Filter.1.Value.{}={}", index + 1, escape(id)));
    }
    form
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn signed(
    url: &str,
    region: &str,
    credentials: &Credentials,
    form: &str,
    time: SystemTime,
) -> Result<HttpRequest, String> {
    const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("ec2")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let url = format!("{}/", url.trim_end_matches('/'));
    let headers = std::iter::once(("content-type", CONTENT_TYPE));
    let signable =
        SignableRequest::new("POST", &url, headers, SignableBody::Bytes(form.as_bytes()))
            .map_err(|error| error.to_string())?;
    let (instructions, _) =
        sign(signable, &params).map_err(|error| error.to_string())?.into_parts();
    let mut request = HttpRequest::new(SdkBody::from(form));
    request.set_method("POST").map_err(|error| error.to_string())?;
    request.set_uri("/").map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    for (name, value) in [("content-type", CONTENT_TYPE)].into_iter().chain(instructions.headers())
    {
        headers.try_insert(name.to_owned(), value.to_owned()).map_err(|error| error.to_string())?;
    }
    Ok(request)
}

/// The addresses in EC2's answer; `None` for anything else.
fn parse(action: Action, xml: &str) -> Option<Vec<Addresses>> {
    let mut document = Document::new(xml);
    let mut root = document.root_element().ok()?;
    if root.start_el().local() != format!("{}Response", action.name()) {
        return None;
    }
    let mut found = Vec::new();
    while let Some(mut set) = root.next_tag() {
        match (action, set.start_el().local()) {
            (Action::DescribeNetworkInterfaces, "networkInterfaceSet") => {
                while let Some(item) = set.next_tag() {
                    found.push(item_of(action, item));
                }
            }
            (Action::DescribeInstances, "reservationSet") => {
                while let Some(mut reservation) = set.next_tag() {
                    while let Some(mut instances) = reservation.next_tag() {
                        if instances.start_el().local() != "instancesSet" {
                            continue;
                        }
                        while let Some(item) = instances.next_tag() {
                            found.push(item_of(action, item));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}

fn item_of(action: Action, mut item: ScopedDecoder<'_, '_>) -> Addresses {
    let text = |mut tag: ScopedDecoder<'_, '_>| {
        try_data(&mut tag).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let mut addresses = Addresses::default();
    while let Some(mut tag) = item.next_tag() {
        let name = tag.start_el().local().to_owned();
        match (action, name.as_str()) {
            (Action::DescribeNetworkInterfaces, "networkInterfaceId")
            | (Action::DescribeInstances, "instanceId") => {
                addresses.id = text(tag).unwrap_or_default();
            }
            (_, "privateIpAddress") => addresses.private = text(tag),
            (Action::DescribeInstances, "ipAddress") => addresses.public = text(tag),
            (Action::DescribeNetworkInterfaces, "association") => {
                while let Some(inner) = tag.next_tag() {
                    if inner.start_el().local() == "publicIp" {
                        addresses.public = text(inner);
                    }
                }
            }
            _ => {}
        }
    }
    addresses
}

/// `<Response><Errors><Error><Code>…</Code><Message>…</Message></Error></Errors></Response>`
fn error_of(xml: &str) -> Option<(String, String)> {
    let mut document = Document::new(xml);
    let mut root = document.root_element().ok()?;
    let mut errors = root.next_tag()?;
    let mut error = errors.next_tag()?;
    let (mut code, mut message) = (None, String::new());
    while let Some(mut tag) = error.next_tag() {
        let name = tag.start_el().local().to_owned();
        let text = try_data(&mut tag).ok()?.into_owned();
        match name.as_str() {
            "Code" => code = Some(text),
            "Message" => message = text,
            _ => {}
        }
    }
    Some((code?, message))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_form_is_of_ids_only() {
        let ids = ["eni-1".to_owned(), "eni 2&x".to_owned()];
        assert_eq!(
            form(Action::DescribeNetworkInterfaces, &ids),
            "Action=DescribeNetworkInterfaces&Version=2016-11-15&Filter.1.Name=network-interface-id&Filter.1.Value.1=eni-1&Filter.1.Value.2=eni%202%26x"
        );
    }

    #[test]
    fn a_request_is_signed_for_ec2_with_its_session() {
        let credentials =
            Credentials::new("ASIAEXAMPLE", "secret", Some("the-token".into()), None, "test");
        let form = form(Action::DescribeInstances, &["i-1".to_owned()]);
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let request =
            signed("https://ec2.eu-west-1.amazonaws.com", "eu-west-1", &credentials, &form, time)
                .unwrap();
        let header = |name: &str| request.headers().get(name).unwrap_or_default().to_owned();
        assert_eq!(request.method(), "POST");
        assert_eq!(header("x-amz-date"), "20231114T221320Z");
        assert_eq!(header("x-amz-security-token"), "the-token");
        assert!(
            header("authorization").starts_with(
                "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/20231114/eu-west-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature="
            ),
            "{}",
            header("authorization")
        );
    }

    /// As in the EC2 API reference, "DescribeNetworkInterfaces", shortened.
    #[test]
    fn the_public_address_is_the_associations() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeNetworkInterfacesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>fc45294c-006b-457b-bab9-012f5b3b0e40</requestId>
  <networkInterfaceSet>
    <item>
      <networkInterfaceId>eni-0f62d866</networkInterfaceId>
      <subnetId>subnet-c53c87ac</subnetId>
      <privateIpAddress>10.0.0.146</privateIpAddress>
      <groupSet><item><groupId>sg-3f5d1253</groupId></item></groupSet>
      <association><publicIp>203.0.113.7</publicIp><ipOwnerId>amazon</ipOwnerId></association>
      <privateIpAddressesSet>
        <item><privateIpAddress>10.0.0.148</privateIpAddress><primary>true</primary></item>
      </privateIpAddressesSet>
    </item>
    <item><networkInterfaceId>eni-a66ed5cf</networkInterfaceId><privateIpAddress>10.0.1.233</privateIpAddress><description/></item>
  </networkInterfaceSet>
</DescribeNetworkInterfacesResponse>"#;
        let found = parse(Action::DescribeNetworkInterfaces, xml).unwrap();
        let expected = |id: &str, private: &str, public: Option<&str>| Addresses {
            id: id.into(),
            private: Some(private.into()),
            public: public.map(Into::into),
        };
        assert_eq!(
            found,
            [
                expected("eni-0f62d866", "10.0.0.146", Some("203.0.113.7")),
                expected("eni-a66ed5cf", "10.0.1.233", None),
            ]
        );
        assert_eq!(parse(Action::DescribeInstances, xml), None);
        assert_eq!(parse(Action::DescribeInstances, "<html>"), None);
    }

    /// As in the EC2 API reference, "DescribeInstances", shortened.
    #[test]
    fn an_instance_has_two_addresses() {
        let xml = r#"<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
  <reservationSet>
    <item><reservationId>r-1</reservationId><groupSet/>
      <instancesSet><item>
        <instanceId>i-1234567890abcdef0</instanceId>
        <privateIpAddress>192.168.1.88</privateIpAddress>
        <ipAddress>54.194.252.215</ipAddress>
        <networkInterfaceSet><item><privateIpAddress>192.168.1.89</privateIpAddress></item></networkInterfaceSet>
      </item></instancesSet>
    </item>
  </reservationSet>
</DescribeInstancesResponse>"#;
        let expected = Addresses {
            id: "i-1234567890abcdef0".into(),
            private: Some("192.168.1.88".into()),
            public: Some("54.194.252.215".into()),
        };
        assert_eq!(parse(Action::DescribeInstances, xml), Some(vec![expected]));
    }

    #[test]
    fn an_error_has_code_and_message() {
        let xml = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. User: arn:aws:sts::1:x</Message></Error></Errors><RequestID>1</RequestID></Response>";
        let (code, message) = error_of(xml).unwrap();
        assert_eq!(code, "UnauthorizedOperation");
        assert!(message.starts_with("You are not authorized"));
        assert_eq!(error_of("<html><body>502</body></html>"), None);
    }
}
