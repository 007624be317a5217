# For the Makefile of a stack that has docker-compose.backup.yml beside it: `include backup.mk`.
# Without containers: make backup RESPALDO='respaldo --config respaldo.toml'
.PHONY: backup backup-service backup-list backup-verify backup-restore

COMPOSE ?= docker compose
# The stack's own file comes first, where there is one: the database is in its network.
stack := $(firstword $(wildcard compose.yaml compose.yml docker-compose.yaml docker-compose.yml))
BACKUP_COMPOSE ?= $(COMPOSE) $(addprefix -f ,$(stack) docker-compose.backup.yml)
# A dump of the old script, on this machine or in the container; or a job and the id of a backup.
BACKUP_FILE ?=
JOB ?=
ID ?= latest
# Anything: a restore does not ask.
YES ?=

ifdef RESPALDO
backup_service = $(RESPALDO) run
else
RESPALDO = $(BACKUP_COMPOSE) run --rm $(mount) respaldo
backup_service = $(BACKUP_COMPOSE) up --detach respaldo
# A file of this machine is shown to the container, with the digest that lies beside it.
ifneq ($(wildcard $(BACKUP_FILE)),)
mount = --volume '$(abspath $(dir $(BACKUP_FILE))):/dumps:ro'
dump = /dumps/$(notdir $(BACKUP_FILE))
endif
endif
dump ?= $(BACKUP_FILE)
unnamed = $(error name a dump, BACKUP_FILE=shop.sql.gz, or a job, JOB=db: `make backup-list` shows both)

backup:  ## back up every job now
	$(RESPALDO) backup --all

backup-service:  ## start the daemon: backups on schedule
	$(backup_service)

backup-list:  ## every backup, and the dumps beside them
	$(RESPALDO) restore --list

backup-verify:  ## read one whole: BACKUP_FILE=shop.sql.gz, or JOB=db [ID=20251124T060000Z]
	$(if $(BACKUP_FILE),$(RESPALDO) restore --file '$(dump)' --verify-only,\
	$(if $(JOB),$(RESPALDO) verify $(JOB) $(ID),$(unnamed)))

backup-restore:  ## put one back: BACKUP_FILE=shop.sql.gz, or JOB=db [ID=...]; asks, unless YES=1
	$(if $(BACKUP_FILE),$(RESPALDO) restore $(JOB) --file '$(dump)',\
	$(if $(JOB),$(RESPALDO) restore $(JOB) $(ID),$(unnamed)))$(if $(YES), --yes)
