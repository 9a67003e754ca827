variable "region" {
  description = "The AWS Region."
  type        = string
  default     = "eu-west-1"
}

variable "environments" {
  description = "Names of environments; names of runner-manager/pointsman.toml are made with them."
  type        = set(string)
  default     = ["dev", "staging", "production"]
}

variable "vpc_id" {
  description = "The VPC of the manager and of the environments' tasks."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets for the manager, with a route to GitLab, to ECS and to the tasks."
  type        = list(string)
}

variable "task_image" {
  description = "The task image with its tag or digest, for both architectures."
  type        = string
}

variable "manager_image" {
  description = "The manager's image with its tag or digest. Without one the service is not made."
  type        = string
  default     = null
}
