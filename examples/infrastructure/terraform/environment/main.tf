# One environment: its cluster on Fargate and Fargate Spot, its jobs' roles, security group, log group, and one task
# definition for x86 and one for ARM.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "current" {}

resource "aws_ecs_cluster" "this" {
  name = "acme-gitlab-${var.environment}-cluster"
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]

  # Pointsman names one at each launch; this is for whoever starts a task by hand.
  default_capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }
}

resource "aws_security_group" "tasks" {
  name        = "acme-gitlab-${var.environment}-tasks"
  description = "GitLab jobs - SSH from the runner manager only"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "the agent, for the runner manager"
  ip_protocol                  = "tcp"
  from_port                    = 2222
  to_port                      = 2222
  referenced_security_group_id = var.manager_security_group
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  description       = "whatever jobs need"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_cloudwatch_log_group" "tasks" {
  name              = "/acme-gitlab/${var.environment}"
  retention_in_days = 14
}

locals {
  trust = {
    Effect    = "Allow"
    Principal = { Service = "ecs-tasks.amazonaws.com" }
    Action    = "sts:AssumeRole"
  }
  # For roles whose credentials a task gets: for tasks of this account only.
  trust_own_tasks = merge(local.trust, {
    Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
  })
}

# For ECS, not for jobs: pulls the image and writes the log.
resource "aws_iam_role" "execution" {
  name               = "acme-gitlab-${var.environment}-execution"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [local.trust] })
}

resource "aws_iam_role_policy" "execution" {
  name = "start-tasks"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = var.task_repository_arn
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.tasks.arn}:*"
      },
    ]
  })
}

# What jobs of this environment may do in AWS. It may nothing yet: attach what a deployment needs.
resource "aws_iam_role" "deploy" {
  name               = "acme-gitlab-${var.environment}-deploy"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [local.trust_own_tasks] })
}

# One for each architecture: an override of RunTask cannot change it.
resource "aws_ecs_task_definition" "task" {
  for_each = {
    X86_64 = "gitlab-runner-${var.environment}-task"
    ARM64  = "gitlab-runner-${var.environment}-task-arm64"
  }

  family                   = each.value
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  # Pointsman says at each launch what it shall be, and the role: without one, a job has no AWS credentials.
  cpu                = 512
  memory             = 1024
  execution_role_arn = aws_iam_role.execution.arn

  runtime_platform {
    cpu_architecture        = each.key
    operating_system_family = "LINUX"
  }

  container_definitions = jsonencode([{
    name         = "ci-coordinator"
    image        = var.task_image
    essential    = true
    portMappings = [{ containerPort = 2222, protocol = "tcp" }]
    # The most that Fargate allows, and what Spot gives as a warning.
    stopTimeout = 120
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.tasks.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "task"
      }
    }
  }])
}
