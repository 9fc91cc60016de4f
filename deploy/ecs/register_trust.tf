# The task of deploy/ecs.sh, for FLIP's own Terraform: copy this file into FLIP's
# deploy/providers/AWS and set register_trust_image and central_hub_api_url.
#
# FLIP's module gives the rest: the execution role, the RDS proxy, the secret FLIP_API, and the slot
# names. The task runs in the network of the service flip-api, which may reach all of them.
# The role that deploys needs deployer-policy.json.

variable "register_trust_image" {
  description = "Image of register-trust, with its tag or digest"
  type        = string
}

variable "central_hub_api_url" {
  description = "CENTRAL_HUB_API_URL as FLIP's .env file has it; each kit carries it to its trust"
  type        = string
}

resource "aws_cloudwatch_log_group" "register_trust" {
  name              = "/ecs/register-trust"
  retention_in_days = 90
}

resource "aws_ecs_task_definition" "register_trust" {
  family                   = "register-trust"
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = "256"
  memory                   = "512"
  execution_role_arn       = aws_iam_role.ecs_task_execution.arn
  task_role_arn            = aws_iam_role.register_trust.arn

  container_definitions = jsonencode([
    {
      name                   = "register-trust"
      image                  = var.register_trust_image
      essential              = true
      readonlyRootFilesystem = true
      user                   = "65532:65532"
      # A core dump would hold the keys.
      ulimits = [{ name = "core", softLimit = 0, hardLimit = 0 }]

      environment = [
        for key, value in {
          ENV                  = "production"
          AWS_REGION           = var.AWS_REGION
          DB_HOST              = aws_db_proxy.flip_db.endpoint
          DB_PORT              = "5432"
          POSTGRES_USER        = var.POSTGRES_USER
          POSTGRES_DB          = var.POSTGRES_DB
          CENTRAL_HUB_API_URL  = var.central_hub_api_url
          TRUST_API_KEY_HEADER = var.TRUST_API_KEY_HEADER
          FL_BACKEND           = var.fl_backend
          FLOWER_KIT_DATE      = var.flower_kit_date
          FLARE_KIT_DATE       = var.flare_kit_date
          DOCKER_TAG           = var.docker_image_tag
          DOCKER_REGISTRY      = var.docker_registry
          DOCKER_FL_TAG        = var.flip_fl_image_tag
          DOCKER_FL_REGISTRY   = var.docker_registry
          NLB_SUBDOMAIN        = var.flip_nlb_subdomain
          FL_SERVER_PORT       = tostring(var.FL_SERVER_PORT)
        } : { name = key, value = value }
      ]

      secrets = [
        { name = "AES_KEY_BASE64", valueFrom = "${module.flip_api_secret.secret_arn}:aes_key::" },
      ]

      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.register_trust.name
          awslogs-region        = var.AWS_REGION
          awslogs-stream-prefix = "register-trust"
          # The receipt is a line of the log: none may be dropped.
          mode = "blocking"
        }
      }
    }
  ])
}

resource "aws_iam_role" "register_trust" {
  name               = "register-trust"
  assume_role_policy = data.aws_iam_policy_document.ecs_tasks_assume.json
}

data "aws_iam_policy_document" "register_trust" {
  statement {
    sid       = "LogInToTheHub"
    actions   = ["rds-db:connect"]
    resources = ["arn:aws:rds-db:${var.AWS_REGION}:${data.aws_caller_identity.current.account_id}:dbuser:${local.rds_proxy_resource_id}/${var.POSTGRES_USER}"]
  }

  statement {
    sid       = "HandOverTheKit"
    actions   = ["ssm:PutParameter"]
    resources = ["arn:aws:ssm:${var.AWS_REGION}:${data.aws_caller_identity.current.account_id}:parameter/flip/trust-kits/ephemeral/*"]
  }

  statement {
    sid       = "ReadTheSlotNames"
    actions   = ["ssm:GetParameter"]
    resources = [aws_ssm_parameter.fl_kit_slot_names.arn]
  }
}

resource "aws_iam_role_policy" "register_trust" {
  name   = "register-trust"
  role   = aws_iam_role.register_trust.id
  policy = data.aws_iam_policy_document.register_trust.json
}
