# Sallyport. Each target is one command; what it needs it builds or fetches, pinned, into the checkout or the caches.
# Needed beforehand: Go, Node, Python 3, make and git.
SHELL       := /bin/sh
CACHE       := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sallyport
TOOLS       := $(CACHE)/tools
GOLANGCI    := v2.15.0
GOVULNCHECK := v1.9.0
CDK         := 2.1148.1
HELM        := v3.21.1
GO_PACKAGES := ./...
FUNCTIONS   := exchange review notify callback

.PHONY: demo up down build test test-fast test-stack bench lint vuln synth fuzz help need clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: build ## bring the stack up, a guided tour that asserts what it shows, take it down
	@bin/local demo

up: build ## start everything on this machine, in the background
	@bin/local up

down: ## end everything that up started
	@if [ -x bin/local ]; then bin/local down; fi

# --- building ---------------------------------------------------------------

build: need bin/cluster bin/.moto-python ## build what the stack runs
	@echo "building bin/local, bin/proxy, bin/sallyport and the functions"
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./local ./proxy ./cmd/sallyport
	@for f in $(FUNCTIONS); do CGO_ENABLED=0 go build -trimpath -tags lambda.norpc -o dist/local/$$f/bootstrap ./functions/$$f || exit 1; done

# Kubernetes, once: minutes the first time, nothing after that. The script knows whether anything changed.
.PHONY: bin/cluster bin/.moto-python
bin/cluster: need
	@mkdir -p bin && binary=$$(local/cluster/build.sh) && ln -sf "$$binary" bin/cluster && ln -sf "$$binary" bin/kubectl

bin/.moto-python: need
	@mkdir -p bin && python=$$(local/aws/moto/venv.sh) && echo "$$python" > $@

need:
	@for tool in go node npm python3 git; do command -v $$tool >/dev/null || { echo "$$tool is missing; see README.md, Prerequisites"; exit 1; }; done

# --- testing ----------------------------------------------------------------

test: build lint ## every test one machine can run
	@echo "testing the nested module local/cluster"
	@cd local/cluster && export CGO_ENABLED=0 GOFLAGS=-trimpath GOWORK=off SALLYPORT_CLUSTER_BIN=$$(readlink -f ../../bin/cluster) && \
	  go vet ./... && go test ./... # the flags of build.sh, or Kubernetes is compiled again
	@echo "testing the module"
	@SALLYPORT_MOTO_PYTHON=$$(cat bin/.moto-python) go test $$(go list ./... | grep -v /e2e/) ./e2e/law
	@$(MAKE) --no-print-directory test-stack synth

test-stack: build $(TOOLS)/helm-$(HELM) ## the tests that drive the running stack
	@echo "testing the running stack"
	@SALLYPORT_STACK=1 HELM=$(TOOLS)/helm-$(HELM) go test -p 1 -timeout 20m ./e2e/...

test-fast: ## the inner loop: no network, no browser, no cluster
	@go vet $(GO_PACKAGES) && go test -short $(GO_PACKAGES)

bench: build ## benchmarks, each against a baseline of the same run; the last on the running stack
	@go test -run '^$$' -bench . -benchmem ./shared/... ./proxy/...
	@SALLYPORT_STACK=1 go test -run '^$$' -bench . -benchtime 10x ./e2e/approvals

FUZZTIME := 10s
fuzz: ## every fuzz test for FUZZTIME; by default Go would spend all of it on making inputs small
	@for pkg in $$(go list ./shared/... ./proxy/... ./functions/... ./local/...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg || exit 1; \
	  done; \
	done

lint: $(TOOLS)/golangci-lint-$(GOLANGCI) ## go vet and golangci-lint
	@go vet $(GO_PACKAGES)
	@$< run $(GO_PACKAGES)

vuln: $(TOOLS)/govulncheck-$(GOVULNCHECK) ## known vulnerabilities; asks a database on the internet
	@$< $(GO_PACKAGES)

synth: ## the CloudFormation template, without an account
	@npx --yes --package=aws-cdk@$(CDK) cdk synth --quiet && echo "cdk.out/Sallyport.template.json"

$(TOOLS)/golangci-lint-$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI), once"
	@mkdir -p $(TOOLS)/build && GOBIN=$(TOOLS)/build GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) && mv $(TOOLS)/build/golangci-lint $@

$(TOOLS)/helm-$(HELM):
	@echo "building helm $(HELM), once"
	@mkdir -p $(TOOLS)/build && GOBIN=$(TOOLS)/build GOFLAGS= go install helm.sh/helm/v3/cmd/helm@$(HELM) && mv $(TOOLS)/build/helm $@

$(TOOLS)/govulncheck-$(GOVULNCHECK):
	@echo "building govulncheck $(GOVULNCHECK), once"
	@mkdir -p $(TOOLS)/build && GOBIN=$(TOOLS)/build GOFLAGS= go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK) && mv $(TOOLS)/build/govulncheck $@
