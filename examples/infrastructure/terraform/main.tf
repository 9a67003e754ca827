# The same as ../cloudformation, in one configuration: what is made once is in manager.tf, the manager's service in
# service.tf, and each environment is a call of the module in environment/.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

module "environment" {
  source   = "./environment"
  for_each = var.environments

  environment            = each.key
  vpc_id                 = var.vpc_id
  region                 = var.region
  task_image             = var.task_image
  task_repository_arn    = aws_ecr_repository.task.arn
  manager_security_group = aws_security_group.manager.id
}
