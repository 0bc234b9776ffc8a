import pytest

from fleet.roles import LEAST_ROLE, Permission, Role


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.VIEWER, {Permission.VIEW}, {Permission.GROUP, Permission.ASSIGN, Permission.REVOKE}),
        (Role.OPERATOR, {Permission.ASSIGN, Permission.REVOKE}, {Permission.RELEASE}),
        (Role.RELEASER, {Permission.RELEASE, Permission.ASSIGN}, {Permission.ENROLL}),
        (Role.ADMIN, set(Permission), set()),
    ],
)
def test_each_role_may_do_its_own(role, may, may_not):
    assert all(role.allows(permission) for permission in may)
    assert not any(role.allows(permission) for permission in may_not)


def test_a_higher_role_may_do_what_a_lower_may():
    for lower, higher in zip(list(Role), list(Role)[1:], strict=False):
        lower_may = {p for p in Permission if lower.allows(p)}
        assert lower_may < {p for p in Permission if higher.allows(p)}


def test_every_permission_belongs_to_a_role():
    assert set(LEAST_ROLE) == set(Permission)


def test_only_viewers_have_no_key():
    assert [role for role in Role if not role.has_key] == [Role.VIEWER]
