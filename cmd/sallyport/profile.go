package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport/shared/recording"
)

// profileVariable names the profile file when --profile does not.
const profileVariable = "SALLYPORT_PROFILE"

// A profile says where a gate's AWS is.
type profile struct {
	Region           string `json:"region"`
	Endpoint         string `json:"endpoint"` // of every AWS service; only where it is not AWS that answers
	RecordingsBucket string `json:"recordings_bucket"`
	Cluster          string `json:"cluster"`
	ReviewsURL       string `json:"reviews_url"` // of the review pages, for approvals
	// Credentials are for the local stack, whose credentials are worth nothing. Without them the SDK's own chain decides.
	Credentials *struct {
		AccessKeyID     string `json:"access_key_id"`
		SecretAccessKey string `json:"secret_access_key"`
	} `json:"credentials"`
}

// A place is the flags that every command has which needs AWS.
type place struct {
	env     environment
	profile string
	cluster string
}

func placeFlags(env environment, fs *flag.FlagSet) *place {
	p := &place{env: env}
	fs.StringVar(&p.profile, "profile", "", "where AWS is, a JSON `FILE`; by default $"+profileVariable+", or the local stack's")
	fs.StringVar(&p.cluster, "cluster", "", "the cluster's `NAME`, when it is not the profile's")
	return p
}

// archive opens the recordings and says of which cluster.
func (p *place) archive(ctx context.Context) (recording.Archive, string, error) {
	file, err := p.file()
	if err != nil {
		return nil, "", err
	}
	prof, err := readProfile(file)
	if err != nil {
		return nil, "", err
	}
	if p.cluster != "" {
		prof.Cluster = p.cluster
	}
	if prof.Cluster == "" {
		return nil, "", usageError("name it with --cluster NAME", "profile %s names no cluster", file)
	}
	opts := []func(*config.LoadOptions) error{config.WithRegion(prof.Region)}
	if c := prof.Credentials; c != nil {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, "", fmt.Errorf("configuring AWS: %w", err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.DisableLogOutputChecksumValidationSkipped = true // segments carry zstd's own
		if prof.Endpoint != "" {
			o.BaseEndpoint = aws.String(prof.Endpoint)
			o.UsePathStyle = true
		}
	})
	return recording.S3Archive{Client: client, Bucket: prof.RecordingsBucket}, prof.Cluster, nil
}

// file is the profile's: the flag's, the environment's, or the one the local stack keeps beside the directory of the
// executable.
func (p *place) file() (string, error) {
	if p.profile != "" {
		return p.profile, nil
	}
	if file := p.env.getenv(profileVariable); file != "" {
		return file, nil
	}
	if exe, err := p.env.executable(); err == nil {
		file := filepath.Join(filepath.Dir(filepath.Dir(exe)), ".local", "profile.json")
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", hint(errors.New("no profile says where AWS is"),
		`write {"region": "...", "recordings_bucket": "...", "cluster": "..."} into a file and name it with --profile FILE or %s; the local stack has one once it is up`, profileVariable)
}

// profileFields is the hint of a profile that cannot be read.
const profileFields = `its fields are region, endpoint, recordings_bucket, cluster, reviews_url and credentials {access_key_id, secret_access_key}`

// parseProfile reads a profile, whatever it is for.
func parseProfile(file string) (profile, error) {
	var p profile
	text, err := os.ReadFile(file)
	if err != nil {
		var reason *fs.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return p, hint(fmt.Errorf("reading profile %s: %w", file, err), "name another with --profile FILE or %s", profileVariable)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a misspelt endpoint would mean AWS itself
	if err := d.Decode(&p); err != nil {
		return p, hint(fmt.Errorf("reading profile %s: %w", file, err), profileFields)
	}
	if _, err := d.Token(); err != io.EOF {
		return p, hint(fmt.Errorf("reading profile %s: something follows the object", file), profileFields)
	}
	return p, nil
}

// readProfile reads a profile for where AWS is.
func readProfile(file string) (profile, error) {
	p, err := parseProfile(file)
	if err != nil {
		return p, err
	}
	if p.Region == "" || p.RecordingsBucket == "" {
		return p, hint(fmt.Errorf("profile %s: region and recordings_bucket must be set", file), profileFields)
	}
	if p.Endpoint != "" {
		if u, err := url.Parse(p.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return p, hint(fmt.Errorf("profile %s: endpoint is no http or https URL", file), "such as http://localhost:5000")
		}
	}
	if p.Credentials != nil && p.Endpoint == "" {
		return p, hint(fmt.Errorf("profile %s: credentials are for the local stack and need its endpoint", file),
			"leave credentials out: the AWS SDK finds yours in its usual places")
	}
	return p, nil
}
