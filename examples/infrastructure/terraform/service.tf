# The runner manager as an ECS service of one task on Fargate.

resource "aws_ecs_task_definition" "manager" {
  count = var.manager_image == null ? 0 : 1

  family                   = "acme-gitlab-manager"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  task_role_arn            = aws_iam_role.manager.arn
  execution_role_arn       = aws_iam_role.manager_execution.arn

  runtime_platform {
    cpu_architecture        = "X86_64"
    operating_system_family = "LINUX"
  }

  container_definitions = jsonencode([{
    name      = "manager"
    image     = var.manager_image
    essential = true
    # The most that Fargate allows: the entry script drains for 75 s of it.
    stopTimeout = 120
    secrets = [for environment in sort(var.environments) : {
      name      = "${upper(environment)}_RUNNER_TOKEN"
      valueFrom = "${aws_secretsmanager_secret.runner_tokens.arn}:${environment}::"
    }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.manager.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "manager"
      }
    }
  }])
}

resource "aws_ecs_service" "manager" {
  count = var.manager_image == null ? 0 : 1

  name            = "acme-gitlab-manager"
  cluster         = aws_ecs_cluster.manager.id
  task_definition = aws_ecs_task_definition.manager[0].arn
  launch_type     = "FARGATE"
  desired_count   = 1

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.manager.id]
    assign_public_ip = false
  }

  # The new manager takes jobs while the old one drains. Two of them get on with each other: each has a state
  # directory of its own, and knows its own tasks by it.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
}
