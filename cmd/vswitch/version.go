package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// The linker sets version and commit for a release (-X main.version=…); otherwise they come
// from the go command's build information.
var version, commit string

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print the version",
		UsageText: "vswitch version [-o json]",
		Description: `Prints the version of this program, its commit, and the Go that built it.

Example:

    vswitch version -o json`,
		Action: printVersion,
	}
}

// versionInfo describes this build.
type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func printVersion(c *cli.Context) error {
	if _, err := words(c); err != nil {
		return err
	}
	v := buildVersion()
	return show(c, v, func(w io.Writer) {
		fmt.Fprintf(w, "vswitch %s, commit %s, %s\n", v.Version, v.Commit, v.Go)
	})
}

func buildVersion() versionInfo {
	v := versionInfo{Version: version, Commit: commit, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v.Commit == "" {
			v.Commit = s.Value
		}
	}
	if v.Commit == "" {
		v.Commit = "unknown"
	}
	return v
}
