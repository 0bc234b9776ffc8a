"""`vigia fleet`: registers the controller's commands; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from fleet.commands import (
    assign,
    audit,
    config,
    enroll,
    group,
    init,
    operator,
    pack,
    passphrase,
    publish,
    push,
    restart,
    revoke,
    rollback,
    rotate,
    sign,
    simulate,
    status,
    watch,
    withdraw,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Run a fleet: enrol devices, release models to them, and see what becomes of it.",
    epilog="Begin with: vigia fleet init DIR --broker-host HOST",
)

app.command("init")(init.init)
app.command("enroll")(enroll.enroll)
app.command("revoke")(revoke.revoke)
app.command("rotate-keys")(rotate.rotate_keys)
app.command("renew")(rotate.renew)
app.command("make-key")(rotate.make_key)
app.command("passphrase")(passphrase.passphrase)
app.add_typer(operator.app, name="operator")
app.add_typer(group.app, name="group")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")

app.command("push")(push.push)
app.command("pack")(pack.pack)
app.command("sign")(sign.sign)
app.command("publish")(publish.publish)
app.command("withdraw")(withdraw.withdraw)
app.command("assign")(assign.assign)
app.command("approve")(assign.approve)
app.command("watch")(watch.watch)
app.command("stop")(assign.stop)
app.command("status")(status.status)
app.command("rollback")(rollback.rollback)
app.command("restart")(restart.restart)
app.command("simulate")(simulate.simulate)
