// Command infra is the CDK app: it writes the CloudFormation template of the gate. cdk.json runs it after infra/build
// has built what it deploys, so that `npx cdk synth` works from a clean clone, without an AWS account and without
// Docker. What is deployed, and why each right is given, is told in README.md beside it.
package main

import (
	"fmt"
	"os"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/jsii-runtime-go"
)

func main() {
	defer jsii.Close()
	app := awscdk.NewApp(nil)
	file := "infra/deployment.yaml"
	if v, ok := app.Node().TryGetContext(jsii.String("deployment")).(string); ok {
		file = v // cdk synth --context deployment=production.yaml
	}
	c, err := LoadConfig(file)
	if err == nil {
		err = built("dist")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "infra:", err)
		jsii.Close()
		os.Exit(1)
	}
	NewStack(app, "Sallyport", c, "dist")
	app.Synth(nil)
}

// built says in our words what the CDK would say in a stack trace.
func built(dist string) error {
	files := []string{proxyImage(dist)}
	for _, name := range functions {
		files = append(files, binary(dist, name))
	}
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("%s is not built; run go run ./infra/build", f)
		}
	}
	return nil
}
