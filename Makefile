# lifecycle: build, demonstration and tests.
#
#   make, make install    build and install for the server of PG_CONFIG
#   make demo             a tour in a throw-away cluster; make shell: the same, then psql
#   make test             all tests; make test TESTS='track signal': those whose path matches
#   make soak             what takes longer
#   make bench            what is claimed about speed; make bench BENCH=backfill: about
#                         tables that already hold leads; BENCH=rules: about rules; BENCH=signals: about
#                         signals; BENCH=reports: about reports
#
# demo, shell, test, soak and bench install what the machine lacks (dev/setup),
# even the compiler and PostgreSQL itself. So nothing here may depend on PGXS
# being there: dev/cluster calls make again for the build, after dev/setup.

EXTENSION  = lifecycle
EXTVERSION := $(shell sed -n "s/^default_version *= *'\([^']*\)'.*/\1/p" $(EXTENSION).control)

MODULE_big = $(EXTENSION)
OBJS       = $(patsubst %.c,%.o,$(wildcard src/*.c))
SRC_HEADERS = $(wildcard src/*.h)

# The install script is made of these parts, in this order.
SQL_PARTS  = $(addprefix sql/, schema.sql model.sql program.sql rule.sql pattern.sql lead.sql signal.sql score.sql \
             history.sql flow.sql partition.sql follow.sql track.sql operation.sql explain.sql import.sql report.sql survival.sql \
             view.sql refresh.sql verify.sql privilege.sql)
SQL_SCRIPT = sql/$(EXTENSION)--$(EXTVERSION).sql

DATA       = $(wildcard sql/$(EXTENSION)--*--*.sql)
DATA_built = $(SQL_SCRIPT)

# PostgreSQL's own headers do not pass -Wextra without these three exceptions.
PG_CFLAGS  = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
ifneq ($(filter true,$(CI))$(filter 1,$(WERROR)),)
PG_CFLAGS += -Werror
endif

EXTRA_CLEAN = $(SQL_SCRIPT) $(SQL_SCRIPT).tmp .build-id test/results

# Bitcode would need the very LLVM the server was built with; make with_llvm=yes asks for it.
ifneq ($(origin with_llvm),command line)
override with_llvm := no
endif

ifeq ($(PG_CONFIG),)
PG_CONFIG := $(shell dev/pg-config)
endif
ifneq ($(PG_CONFIG),)
export PG_CONFIG
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
endif

ifneq ($(wildcard $(PGXS)),)
include $(PGXS)

ifneq ($(filter 8.% 9.% 10 11 12 13 14,$(MAJORVERSION)),)
$(error lifecycle needs PostgreSQL 15 or later, and $(PG_CONFIG) belongs to PostgreSQL $(VERSION))
endif

# Objects made for another server or with other flags are made anew.
BUILD_ID = $(VERSION) $(CC) $(CPPFLAGS) $(CFLAGS)
.build-id: FORCE
	@printf '%s\n' '$(subst ','\'',$(BUILD_ID))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(BUILD_ID))' > $@
$(OBJS): $(SRC_HEADERS) .build-id

else # no PGXS
all install:
	@echo 'No PostgreSQL with development files$(if $(PG_CONFIG), at $(PG_CONFIG)).' >&2
	@echo 'Run dev/setup, or say make PG_CONFIG=/path/to/pg_config.' >&2
	@exit 1
uninstall:
clean:
	rm -rf src/*.o src/*.bc $(EXTENSION).so $(EXTRA_CLEAN)
endif

# A part that nobody listed would silently be missing from the extension.
UNLISTED = $(filter-out $(SQL_PARTS),$(foreach f,$(wildcard sql/*.sql),$(if $(findstring --,$f),,$f)))
$(SQL_SCRIPT): $(SQL_PARTS) $(UNLISTED) $(EXTENSION).control Makefile
	$(if $(UNLISTED),$(error not in SQL_PARTS: $(UNLISTED)))
	@printf '%s\n\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit' > $@.tmp
	cat $(SQL_PARTS) >> $@.tmp
	@mv $@.tmp $@

# exec: a signal that make passes on must reach dev/cluster itself, not a shell before it.
setup:
	@dev/setup

demo: setup
	@exec dev/cluster --database demo -- demo/run

shell: setup
	@exec dev/cluster --database demo --interactive -- bash -c 'demo/run && exec psql'

test: export TESTS := $(TESTS)
test: setup
	@exec dev/cluster -- test/run

soak: setup
	@if [ -e test/soak/run ]; then exec dev/cluster -- test/soak/run; else echo 'There is no test/soak/run.'; fi

define BENCH_CONF
fsync = on
shared_buffers = 2GB
max_wal_size = 8GB
checkpoint_timeout = 60min
autovacuum = off
jit = off
endef
bench: export CLUSTER_CONF := $(BENCH_CONF)
bench: setup
	@exec dev/cluster -- bench/$(or $(BENCH),run)

FORCE:
.PHONY: FORCE all install uninstall clean setup demo shell test soak bench
