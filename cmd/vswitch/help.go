package main

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
