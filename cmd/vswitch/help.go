package main

import (
	"bytes"
	"io"

	"github.com/urfave/cli/v2"
)

// Help is written at once, as tables are (internal/table): `vswitch add-port --help | grep -q` ends at
// the first line that it looks for.
func init() {
	cli.HelpPrinter = func(w io.Writer, template string, data any) {
		var all bytes.Buffer
		cli.HelpPrinterCustom(&all, template, data, nil)
		_, _ = w.Write(all.Bytes()) // output keeps the error
	}
}

// Templates for cli: the help of the program and of a command.
const (
	appHelp = `{{.Name}} - {{.Usage}}

Usage:
{{indent 3 .UsageText}}

{{.Description}}

Commands:{{template "visibleCommandTemplate" .}}

Flags of all commands:{{template "visibleFlagTemplate" .}}
`

	commandHelp = `{{.HelpName}} - {{.Usage}}

Usage:
   {{.UsageText}}

{{.Description}}
{{- if .VisibleCommands}}

Commands:{{template "visibleCommandTemplate" .}}{{end}}

Flags:{{template "visibleFlagTemplate" .}}

` + "`vswitch --help` has the flags of all commands.\n"
)
