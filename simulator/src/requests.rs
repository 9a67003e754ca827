//! The requests of the operations that the simulator knows, each with every member of the service model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{CapacityProviderStrategyItem, NetworkConfiguration, Tag, TaskOverride};

/// `RunTaskRequest`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RunTask {
    #[serde(default)]
    pub(crate) capacity_provider_strategy: Vec<CapacityProviderStrategyItem>,
    pub(crate) cluster: Option<String>,
    pub(crate) count: Option<i64>,
    #[serde(rename = "enableECSManagedTags", default)]
    pub(crate) enable_ecs_managed_tags: bool,
    #[serde(default)]
    pub(crate) enable_execute_command: bool,
    pub(crate) group: Option<String>,
    pub(crate) launch_type: Option<String>,
    pub(crate) network_configuration: Option<NetworkConfiguration>,
    pub(crate) overrides: Option<TaskOverride>,
    #[serde(default)]
    pub(crate) placement_constraints: Vec<Value>,
    #[serde(default)]
    pub(crate) placement_strategy: Vec<Value>,
    pub(crate) platform_version: Option<String>,
    pub(crate) propagate_tags: Option<String>,
    pub(crate) reference_id: Option<String>,
    pub(crate) started_by: Option<String>,
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
    pub(crate) task_definition: String,
    pub(crate) client_token: Option<String>,
    #[serde(default)]
    pub(crate) volume_configurations: Vec<TaskVolumeConfiguration>,
}

/// `TaskVolumeConfiguration`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskVolumeConfiguration {
    pub(crate) name: String,
    #[serde(rename = "managedEBSVolume")]
    pub(crate) managed_ebs_volume: Option<Value>,
}

/// `GetServiceQuotaRequest` of Service Quotas
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct GetServiceQuota {
    pub(crate) service_code: String,
    pub(crate) quota_code: String,
    #[expect(dead_code, reason = "a member of the service model, which is accepted")]
    pub(crate) context_id: Option<String>,
}

/// `DescribeTasksRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribeTasks {
    pub(crate) cluster: Option<String>,
    pub(crate) tasks: Vec<String>,
    #[serde(default)]
    pub(crate) include: Vec<String>,
}

/// `StopTaskRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopTask {
    pub(crate) cluster: Option<String>,
    pub(crate) task: String,
    pub(crate) reason: Option<String>,
}

/// `ListTasksRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListTasks {
    pub(crate) cluster: Option<String>,
    pub(crate) container_instance: Option<String>,
    pub(crate) family: Option<String>,
    pub(crate) next_token: Option<String>,
    pub(crate) max_results: Option<i64>,
    pub(crate) started_by: Option<String>,
    pub(crate) service_name: Option<String>,
    pub(crate) desired_status: Option<String>,
    pub(crate) launch_type: Option<String>,
    pub(crate) daemon_name: Option<String>,
}

/// `DescribeTaskDefinitionRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DescribeTaskDefinition {
    pub(crate) task_definition: String,
    #[serde(default)]
    pub(crate) include: Vec<String>,
}

/// `DescribeClustersRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribeClusters {
    #[serde(default)]
    pub(crate) clusters: Vec<String>,
    #[serde(default)]
    pub(crate) include: Vec<String>,
}

/// `CreateClusterRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateCluster {
    pub(crate) cluster_name: Option<String>,
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
    #[serde(default)]
    pub(crate) settings: Vec<Value>,
    pub(crate) configuration: Option<Value>,
    #[serde(default)]
    pub(crate) capacity_providers: Vec<String>,
    #[serde(default)]
    pub(crate) default_capacity_provider_strategy: Vec<CapacityProviderStrategyItem>,
    pub(crate) service_connect_defaults: Option<Value>,
}

/// `PutClusterCapacityProvidersRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PutClusterCapacityProviders {
    pub(crate) cluster: String,
    pub(crate) capacity_providers: Vec<String>,
    pub(crate) default_capacity_provider_strategy: Vec<CapacityProviderStrategyItem>,
}
