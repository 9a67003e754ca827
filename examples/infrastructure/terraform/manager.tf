# What is made once for all environments.

data "aws_caller_identity" "current" {}

resource "aws_ecs_cluster" "manager" {
  # A cluster of its own: the policy below lets the manager stop any task of the environments' clusters.
  name = "acme-gitlab-manager-cluster"
}

resource "aws_security_group" "manager" {
  name        = "acme-gitlab-manager"
  description = "GitLab runner manager - nothing comes in"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "manager" {
  security_group_id = aws_security_group.manager.id
  description       = "GitLab, AWS, and the tasks SSH port"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_ecr_repository" "manager" {
  name                 = "acme-gitlab-manager"
  image_tag_mutability = "IMMUTABLE"
}

resource "aws_ecr_repository" "task" {
  name                 = "acme-gitlab-task"
  image_tag_mutability = "IMMUTABLE"
}

resource "aws_cloudwatch_log_group" "manager" {
  name              = "/acme-gitlab/manager"
  retention_in_days = 30
}

# No value here, so none in Terraform's state: `aws secretsmanager put-secret-value` brings it, see
# runner-manager/README.md.
resource "aws_secretsmanager_secret" "runner_tokens" {
  name        = "acme-gitlab-runner-tokens"
  description = "The GitLab runners authentication tokens, as JSON with the keys dev, staging and production"
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

# For ECS, not for the manager: pulls its image, writes its log, and hands it the tokens.
resource "aws_iam_role" "manager_execution" {
  name               = "acme-gitlab-manager-execution"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [local.trust] })
}

resource "aws_iam_role_policy" "manager_execution" {
  name = "start-the-manager"
  role = aws_iam_role.manager_execution.id
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
        Resource = aws_ecr_repository.manager.arn
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.manager.arn}:*"
      },
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = aws_secretsmanager_secret.runner_tokens.arn
      },
    ]
  })
}

# The manager's own credentials.
resource "aws_iam_role" "manager" {
  name               = "acme-gitlab-manager"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [local.trust_own_tasks] })
}

# What `pointsman iam-policy` prints for runner-manager/pointsman.toml: after a change of that file, let it print again.
resource "aws_iam_role_policy" "manager" {
  name   = "pointsman"
  role   = aws_iam_role.manager.id
  policy = file("${path.module}/manager-policy.json")
}
