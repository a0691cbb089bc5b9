package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print the manual page",
		UsageText: "vswitch man",
		Description: `Prints the manual page vswitch(8).

Example:

    vswitch man >/usr/local/share/man/man8/vswitch.8`,
		Hidden: true,
		Action: printMan,
	}
}

func printMan(c *cli.Context) error {
	if _, err := words(c); err != nil {
		return err
	}
	// A fresh tree: cli has added flags of its own to the one that runs, and
	// writes a command's usage alone, so that the description must be there.
	app := newApp(c.App.Writer)
	describe(app.Commands)
	page, err := app.ToMan()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.App.Writer, page)
	return err
}

func describe(commands []*cli.Command) {
	for _, c := range commands {
		c.Usage += "\n\n**" + c.UsageText + "**\n\n" + c.Description
		c.UsageText = ""
		describe(c.Subcommands)
	}
}
