//! Calls of other services than ECS, made by hand: `aws-sdk-ec2` alone is larger than the rest of the driver.
//!
//! EC2, STS and IAM speak the query protocol: a form in, XML out; Service Quotas speaks JSON. Signing, HTTP and
//! retries are the SDK's own parts. The addresses of tasks are read here, everything else in `survey`.

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
use super::xml::Node;
use crate::backend::BackendError;

/// A service, and how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Ec2,
    Iam,
    Quotas,
    Sts,
}

impl Service {
    /// As signatures and host names have it.
    fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Iam => "iam",
            Self::Quotas => "servicequotas",
            Self::Sts => "sts",
        }
    }

    /// As AWS's own variables and files have it: `AWS_ENDPOINT_URL_EC2`.
    fn id(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Iam => "IAM",
            Self::Quotas => "Service Quotas",
            Self::Sts => "STS",
        }
    }

    /// Of the API whose answers are read here.
    fn version(self) -> &'static str {
        match self {
            Self::Ec2 => "2016-11-15",
            Self::Iam => "2010-05-08",
            Self::Quotas => "2019-06-24",
            Self::Sts => "2011-06-15",
        }
    }

    /// The endpoint's host in `region`, and the Region that its requests are signed for. IAM has one endpoint for
    /// each partition (AWS general reference, "IAM endpoints and quotas").
    fn host(self, region: &str) -> (String, String) {
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        match self {
            Self::Iam if region.starts_with("cn-") => {
                (format!("iam.cn-north-1.{suffix}"), "cn-north-1".to_owned())
            }
            Self::Iam if region.starts_with("us-gov-") => {
                (format!("iam.us-gov.{suffix}"), "us-gov-west-1".to_owned())
            }
            Self::Iam => (format!("iam.{suffix}"), "us-east-1".to_owned()),
            _ => (format!("{}.{region}.{suffix}", self.name()), region.to_owned()),
        }
    }
}

/// What is sent: an action's name with its form, or with its JSON.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) service: Service,
    pub(super) action: &'static str,
    /// `Action` and `Version` are added to it; for Service Quotas, JSON.
    pub(super) body: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    action: &'static str,
    status: u16,
    /// The header of this name.
    pub(super) date: Option<String>,
    body: String,
}

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
    let call =
        Call { service: Service::Ec2, action: action.name(), body: form(action.filter(), ids) };
    let body = send(sdk, credentials, region, &call).await?.body()?;
    let no_xml = || BackendError::new(call.action, "answer", "the answer is no XML of EC2's");
    parse(action, &body).ok_or_else(no_xml)
}

impl Reply {
    /// The body of an answer that is no error.
    ///
    /// # Errors
    ///
    /// Fails with the service's code and message.
    pub(super) fn body(self) -> Result<String, BackendError> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let (code, message) = error_of(&self.body)
            .unwrap_or_else(|| (format!("HTTP {}", self.status), "no message".to_owned()));
        Err(with_advice(BackendError::new(self.action, code, message)))
    }
}

/// Signs and sends `call`.
///
/// # Errors
///
/// Fails without an answer; an answer that is an error is told of by [`Reply::body`].
pub(super) async fn send(
    sdk: &SdkConfig,
    credentials: &Credentials,
    region: &str,
    call: &Call,
) -> Result<Reply, BackendError> {
    let (url, region) = endpoint(sdk, call.service, region);
    let action = call.action;
    let request = signed(&url, &region, credentials, call, SystemTime::now())
        .map_err(|message| BackendError::new(action, "request", message))?;
    let mut operation = Operation::builder()
        .service_name(call.service.name())
        .operation_name(action)
        .endpoint_url(&url)
        .no_auth()
        // Whatever holds for ECS: nobody above repeats these calls.
        .standard_retry(&RetryConfig::standard())
        .retry_classifier(HttpStatusCodeClassifier::default())
        .timeout_config(
            TimeoutConfig::builder()
                .operation_timeout(TIMEOUT)
                .connect_timeout(super::CONNECT_TIMEOUT)
                .build(),
        );
    if let Some(client) = sdk.http_client() {
        operation = operation.http_client(client);
    }
    if let Some(sleep) = sdk.sleep_impl() {
        operation = operation.sleep_impl(sleep);
    }
    let operation = operation
        .serializer(move |()| request.try_clone().ok_or_else(|| "the body is a stream".into()))
        .deserializer::<_, Infallible>(move |response: &HttpResponse| {
            let body = response.body().bytes().unwrap_or_default();
            Ok(Reply {
                action,
                status: response.status().as_u16(),
                date: response.headers().get("date").map(str::to_owned),
                body: String::from_utf8_lossy(body).into_owned(),
            })
        })
        .build();
    operation.invoke(()).await.map_err(|error| {
        let error: SdkError<Infallible, HttpResponse> = error;
        let message = DisplayErrorContext(error).to_string();
        with_advice(BackendError::new(action, "no answer", message))
    })
}

/// The service's endpoint, or the one that AWS's own variables and files name (`AWS_ENDPOINT_URL_EC2`), with the
/// Region to sign for.
fn endpoint(sdk: &SdkConfig, service: Service, region: &str) -> (String, String) {
    let key = ServiceConfigKey::builder()
        .service_id(service.id())
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let configured = key
        .ok()
        .and_then(|key| sdk.service_config()?.load_config(key))
        .or_else(|| sdk.endpoint_url().map(str::to_owned));
    let (host, region) = service.host(region);
    (configured.unwrap_or_else(|| format!("https://{host}")), region)
}

/// A filter of EC2's, to be put into a form.
pub(super) fn filter(number: usize, name: &str, values: &[String]) -> String {
    let mut form = format!("Filter.{number}.Name={}", escape(name));
    for (index, value) in values.iter().enumerate() {
        form.push_str(&format!("&Filter.{number}.Value.{}={}", index + 1, escape(value)));
    }
    form
}

fn form(name: &str, ids: &[String]) -> String {
    filter(1, name, ids)
}

/// For a form.
pub(super) fn escape(text: &str) -> String {
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
    call: &Call,
    time: SystemTime,
) -> Result<HttpRequest, String> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(call.service.name())
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let url = format!("{}/", url.trim_end_matches('/'));
    let (headers, body) = message(call);
    let signable = SignableRequest::new(
        "POST",
        &url,
        headers.iter().map(|(name, value)| (*name, value.as_str())),
        SignableBody::Bytes(body.as_bytes()),
    )
    .map_err(|error| error.to_string())?;
    let (instructions, _) =
        sign(signable, &params).map_err(|error| error.to_string())?.into_parts();
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST").map_err(|error| error.to_string())?;
    request.set_uri("/").map_err(|error| error.to_string())?;
    let target = request.headers_mut();
    let plain = headers.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in plain.chain(instructions.headers()) {
        target.try_insert(name.to_owned(), value.to_owned()).map_err(|error| error.to_string())?;
    }
    Ok(request)
}

/// Headers and body by the service's protocol.
fn message(call: &Call) -> (Vec<(&'static str, String)>, String) {
    if call.service == Service::Quotas {
        let headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("ServiceQuotasV20190624.{}", call.action)),
        ];
        return (headers, call.body.clone());
    }
    let kind = "application/x-www-form-urlencoded; charset=utf-8".to_owned();
    let separator = if call.body.is_empty() { "" } else { "&" };
    let (action, version) = (call.action, call.service.version());
    let body = format!("Action={action}&Version={version}{separator}{}", call.body);
    (vec![("content-type", kind)], body)
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

/// Code and message of EC2's `<Response><Errors><Error>`, of the others' `<ErrorResponse><Error>`, and of JSON's
/// `{"__type": …, "message": …}`.
fn error_of(body: &str) -> Option<(String, String)> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
        let code = json["__type"].as_str()?.rsplit('#').next()?.to_owned();
        let message = json["message"].as_str().or(json["Message"].as_str()).unwrap_or_default();
        return Some((code, message.to_owned()));
    }
    let inner = ["Errors", "Error"];
    let found = Node::read(body, "Response", &inner)
        .or_else(|| Node::read(body, "ErrorResponse", &inner))?;
    let error = found.child("Errors").unwrap_or(&found).child("Error")?;
    let code = Some(error.text("Code").to_owned()).filter(|code| !code.is_empty())?;
    Some((code, error.text("Message").to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_form_is_of_ids_only() {
        let ids = ["eni-1".to_owned(), "eni 2&x".to_owned()];
        assert_eq!(
            message(&Call {
                service: Service::Ec2,
                action: Action::DescribeNetworkInterfaces.name(),
                body: form(Action::DescribeNetworkInterfaces.filter(), &ids),
            })
            .1,
            "Action=DescribeNetworkInterfaces&Version=2016-11-15&Filter.1.Name=network-interface-id&Filter.1.Value.1=eni-1&Filter.1.Value.2=eni%202%26x"
        );
    }

    #[test]
    fn a_request_is_signed_for_ec2_with_its_session() {
        let credentials =
            Credentials::new("ASIAEXAMPLE", "secret", Some("the-token".into()), None, "test");
        let call = Call {
            service: Service::Ec2,
            action: "DescribeInstances",
            body: form("instance-id", &["i-1".to_owned()]),
        };
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let request =
            signed("https://ec2.eu-west-1.amazonaws.com", "eu-west-1", &credentials, &call, time)
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
        let sts = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>Signature expired</Message></Error></ErrorResponse>";
        assert_eq!(
            error_of(sts),
            Some(("SignatureDoesNotMatch".to_owned(), "Signature expired".to_owned()))
        );
        let json = r#"{"__type":"com.amazonaws#AccessDeniedException","Message":"no"}"#;
        assert_eq!(error_of(json), Some(("AccessDeniedException".to_owned(), "no".to_owned())));
        assert_eq!(error_of("<html><body>502</body></html>"), None);
    }
}
