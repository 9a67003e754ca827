variable "environment" {
  description = "Such as dev, staging or production."
  type        = string
}

variable "region" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "task_image" {
  type = string
}

variable "task_repository_arn" {
  type = string
}

variable "manager_security_group" {
  type = string
}
