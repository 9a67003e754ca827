output "security_group" {
  value = aws_security_group.tasks.id
}

output "deploy_role" {
  value = aws_iam_role.deploy.arn
}
