output "manager_repository" {
  description = "Where the manager's image is pushed."
  value       = aws_ecr_repository.manager.repository_url
}

output "task_repository" {
  description = "Where the task image is pushed."
  value       = aws_ecr_repository.task.repository_url
}

output "security_groups" {
  description = "For security_groups of the clusters in pointsman.toml."
  value       = { for name, environment in module.environment : name => environment.security_group }
}

output "deploy_roles" {
  description = "For the roles in pointsman.toml, and for the permissions that deployments need."
  value       = { for name, environment in module.environment : name => environment.deploy_role }
}
