//! The calls around ECS that speak the query protocol, a form in and XML out: STS's AssumeRole and
//! GetCallerIdentity, IAM's SimulatePrincipalPolicy for one action and one resource, and EC2's descriptions of
//! interfaces, instances and networks.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use crate::account::Account;
use crate::faults::Target;
use crate::instances;
use crate::ledger::Event;
use crate::network::Filters;
use crate::protocol::ApiError;
use crate::service::Service;
use crate::sessions::Request;
use crate::task::Task;

/// What tells the protocol from AWS JSON.
pub(crate) const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

type Form = BTreeMap<String, String>;

/// Performs the call of `caller`, an access key id.
pub(crate) fn perform(service: &Service, caller: Option<&str>, body: &[u8]) -> Response {
    let form = parse(&String::from_utf8_lossy(body));
    let action = form.get("Action").cloned().unwrap_or_default();
    let target = Target::of(&service.account().names, &serde_json::Value::Null);
    let answer = service.admit(&action, &target).and_then(|()| match action.as_str() {
        "AssumeRole" => assume_role(service, &form),
        "GetCallerIdentity" => Ok(caller_identity(service, caller)),
        "SimulatePrincipalPolicy" => simulate(&service.account(), &form),
        "DescribeNetworkInterfaces" => {
            addresses(service, caller, &form, "network-interface-id", network_interfaces)
        }
        "DescribeInstances" => addresses(service, caller, &form, "instance-id", instances),
        _ => network(service, caller, &action, &form),
    });
    match answer {
        Ok(xml) => reply(200, xml),
        Err(error) => {
            service.ledger.write(Event::Refused {
                operation: action.clone(),
                code: error.code.clone(),
                message: error.message.clone(),
            });
            let (code, message) = (escape(&error.code), escape(&error.message));
            let namespace = match action.as_str() {
                "AssumeRole" | "GetCallerIdentity" => Some("sts.amazonaws.com/doc/2011-06-15"),
                "SimulatePrincipalPolicy" => Some("iam.amazonaws.com/doc/2010-05-08"),
                _ => None,
            };
            let xml = if let Some(namespace) = namespace {
                format!(
                    "<ErrorResponse xmlns=\"https://{namespace}/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
                )
            } else {
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>0</RequestID></Response>"
                )
            };
            reply(error.status, xml)
        }
    }
}

fn reply(status: u16, xml: String) -> Response {
    let mut response = Response::new(Body::from(xml));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

fn assume_role(service: &Service, form: &Form) -> Result<String, ApiError> {
    let text = |key: &str| form.get(key).cloned();
    let mut tags = BTreeMap::new();
    for number in 1.. {
        let Some(key) = text(&format!("Tags.member.{number}.Key")) else { break };
        tags.insert(key, text(&format!("Tags.member.{number}.Value")).unwrap_or_default());
    }
    let request = Request {
        role: text("RoleArn").unwrap_or_default(),
        session_name: text("RoleSessionName").unwrap_or_default(),
        external_id: text("ExternalId"),
        seconds: text("DurationSeconds").and_then(|seconds| seconds.parse().ok()),
        tags,
    };
    let (key, seconds) = service.account().sessions.assume(&request)?;
    let expiry = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + seconds)
        .map_err(|error| ApiError::server(error.to_string()))?;
    service.ledger.write(Event::AssumeRole {
        role: request.role,
        session_name: request.session_name.clone(),
        external_id: request.external_id,
        tags: request.tags,
        access_key: key.clone(),
    });
    let name = escape(&request.session_name);
    Ok(format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/simulated/{name}</Arn><AssumedRoleId>AROASIMULATED:{name}</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret-of-{key}</SecretAccessKey><SessionToken>token-of-{key}</SessionToken><Expiration>{expiry}</Expiration></Credentials>\
         </AssumeRoleResult><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></AssumeRoleResponse>"
    ))
}

/// STS answers everybody whose signature is valid; here, everybody.
fn caller_identity(service: &Service, caller: Option<&str>) -> String {
    let account = service.account();
    let (number, arn) = account.sessions.identity(caller, &account.names.account);
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>{arn}</Arn><UserId>AIDASIMULATED</UserId><Account>{number}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
}

fn simulate(account: &Account, form: &Form) -> Result<String, ApiError> {
    account.permissions.check("iam:SimulatePrincipalPolicy", "*")?;
    let missing = |key: &str| {
        let message = format!(
            "1 validation error detected: Value at '{key}' failed to satisfy constraint: Member must not be null"
        );
        ApiError::new("ValidationError", message)
    };
    let text = |key: &str| form.get(key).map(String::as_str).ok_or_else(|| missing(key));
    let source = text("PolicySourceArn")?;
    if !source.starts_with("arn:aws:iam::") {
        return Err(ApiError::new(
            "InvalidInput",
            format!("{source} is not a user's, group's or role's ARN"),
        ));
    }
    let (action, resource) = (text("ActionNames.member.1")?, text("ResourceArns.member.1")?);
    if form.contains_key("ActionNames.member.2") || form.contains_key("ResourceArns.member.2") {
        return Err(ApiError::new("InvalidInput", "One action and one resource are simulated."));
    }
    for key in (1..).map(|number| format!("ContextEntries.member.{number}")) {
        if !form.keys().any(|name| name.starts_with(&format!("{key}."))) {
            break;
        }
        text(&format!("{key}.ContextKeyName"))?;
        text(&format!("{key}.ContextKeyValues.member.1"))?;
        text(&format!("{key}.ContextKeyType"))?;
    }
    let decision = account.permissions.decision(action, resource, &account.roles);
    let (action, resource) = (escape(action), escape(resource));
    Ok(format!(
        "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults><member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName><EvalDecision>{decision}</EvalDecision><MatchedStatements/><MissingContextValues/></member></EvaluationResults></SimulatePrincipalPolicyResult><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></SimulatePrincipalPolicyResponse>"
    ))
}

fn network(
    service: &Service,
    caller: Option<&str>,
    action: &str,
    form: &Form,
) -> Result<String, ApiError> {
    let account = service.account();
    account.sessions.admit(caller).map_err(|_| unauthorized())?;
    account.permissions.check(&format!("ec2:{action}"), "*")?;
    let filters = filters(form);
    account
        .network
        .describe(
            action,
            &account.names.region,
            &account.subnets,
            &account.security_groups,
            &filters,
        )
        .unwrap_or_else(|| {
            Err(ApiError::new("InvalidAction", format!("The action {action} is not valid")))
        })
}

fn filters(form: &Form) -> Filters {
    let values = |number: usize| {
        let key = |index: usize| format!("Filter.{number}.Value.{index}");
        (1..).map_while(|index| form.get(&key(index)).cloned()).collect()
    };
    (1..)
        .map_while(|number| {
            Some((form.get(&format!("Filter.{number}.Name"))?.clone(), values(number)))
        })
        .collect()
}

fn unauthorized() -> ApiError {
    let message = "You are not authorized to perform this operation.";
    ApiError { status: 403, ..ApiError::new("UnauthorizedOperation", message) }
}

fn addresses(
    service: &Service,
    caller: Option<&str>,
    form: &Form,
    filter: &str,
    describe: fn(&Account, &[String]) -> String,
) -> Result<String, ApiError> {
    let account = service.account();
    account.sessions.admit(caller).map_err(|_| unauthorized())?;
    let action = form.get("Action").map_or("", String::as_str);
    account.permissions.check(&format!("ec2:{action}"), "*")?;
    if form.get("Filter.1.Name").map(String::as_str) != Some(filter) {
        return Err(ApiError::new(
            "InvalidParameterValue",
            format!("expected the filter {filter}"),
        ));
    }
    let ids: Vec<String> =
        (1..).map_while(|number| form.get(&format!("Filter.1.Value.{number}")).cloned()).collect();
    if ids.len() > 200 {
        return Err(ApiError::new(
            "FilterLimitExceeded",
            "The maximum number of filter values is 200.",
        ));
    }
    let xml = describe(&account, &ids);
    let operation = form.get("Action").cloned().unwrap_or_default();
    service.ledger.write(Event::DescribeAddresses { operation, ids });
    Ok(xml)
}

fn network_interfaces(account: &Account, ids: &[String]) -> String {
    let mut items = String::new();
    for task in matching(account, ids, instances::interface_id) {
        let (Some(private), Some(address)) = (instances::private_address(task), task.address)
        else {
            continue;
        };
        let association = match task.has_public_address {
            true => format!("<association><publicIp>{address}</publicIp></association>"),
            false => String::new(),
        };
        let id = instances::interface_id(task);
        items.push_str(&format!(
            "<item><networkInterfaceId>{id}</networkInterfaceId><privateIpAddress>{private}</privateIpAddress>{association}</item>"
        ));
    }
    format!(
        "<DescribeNetworkInterfacesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>0</requestId><networkInterfaceSet>{items}</networkInterfaceSet></DescribeNetworkInterfacesResponse>"
    )
}

fn instances(account: &Account, ids: &[String]) -> String {
    let mut items = String::new();
    for task in matching(account, ids, instances::instance_id) {
        let (id, Some(address)) = (instances::instance_id(task), task.address) else { continue };
        items.push_str(&format!(
            "<item><reservationId>r-0</reservationId><instancesSet><item><instanceId>{id}</instanceId><privateIpAddress>{address}</privateIpAddress></item></instancesSet></item>"
        ));
    }
    format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>0</requestId><reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    )
}

fn matching<'a>(
    account: &'a Account,
    ids: &'a [String],
    id: fn(&Task) -> String,
) -> impl Iterator<Item = &'a Task> {
    account.tasks.values().filter(move |task| ids.contains(&id(task)))
}

fn parse(body: &str) -> Form {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (unescape(key), unescape(value))).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(hex);
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms_are_unescaped() {
        let form = parse("Action=AssumeRole&Tags.member.1.Key=pointsman%3Ajob&X=a+b%zz%&Y=%C3%BC");
        assert_eq!(form["Action"], "AssumeRole");
        assert_eq!(form["Tags.member.1.Key"], "pointsman:job");
        assert_eq!(form["X"], "a b%zz%");
        assert_eq!(form["Y"], "ü");
    }
}
